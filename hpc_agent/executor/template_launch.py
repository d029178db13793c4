"""Containers that the job's own script starts, by the function that its template became (``submission.glue_template``).

The function has the template's command, as in ``srun singularity exec --uts "$@"``; it is given the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
from msgspec.structs import replace

from hpc_agent.containers.runtime_api import Argv, ContainerSpec, ScriptedRuntime
from hpc_agent.file_records import ensure_directory, write_atomic
from hpc_agent.image_resolver import ResolvedContainer
from hpc_agent.submission.glue_template import LAUNCH_FUNCTION

_CALL = f"""\
export PATH="$1:$PATH" HPC_AGENT_LAUNCH_IMAGE="$2"
shift 2
# This shell stays to report how the command ends; to that the signals mean what they always mean.
trap : TERM INT HUP QUIT USR1 USR2
{LAUNCH_FUNCTION} "$@"
"""
_SRUN = Path(__file__).with_name("template_srun.sh")


class TemplateLaunch(msgspec.Struct, frozen=True):
    """A ``Runtime`` whose command is in the job's script."""

    runtime: ScriptedRuntime
    reference: str
    """The image as the task or the configuration names it."""
    bin_dir: Path
    """Folder that is first on the function's PATH."""
    in_step = True

    @property
    def name(self) -> str:
        return self.runtime.name

    @property
    def program(self) -> str:
        return self.runtime.program

    @property
    def suffix(self) -> str:
        return self.runtime.suffix

    @property
    def isolated(self) -> bool:
        return self.runtime.isolated

    @property
    def can_run(self) -> bool:
        return self.runtime.can_run

    def wrap(self, spec: ContainerSpec) -> Argv:
        # Which variables of the node reach the container is the template's choice.
        return [
            "bash",
            "-c",
            _CALL,
            LAUNCH_FUNCTION,
            str(self.bin_dir),
            self.reference,
            *self.runtime.command_arguments(spec),
        ]

    def remove(self, name: str) -> Argv | None:
        return self.runtime.remove(name)

    def fetch(self, reference: str, into: Path) -> Sequence[Argv]:
        return self.runtime.fetch(reference, into)


def launched_by_script(resolved: ResolvedContainer, run_dir: Path) -> ResolvedContainer:
    """The container as the job's script starts it. What the function needs is written to ``run_dir``."""
    prepared = resolved.prepared
    folder = ensure_directory(run_dir / "bin", mode=0o700)
    write_atomic(folder / "srun", _SRUN.read_bytes(), mode=0o700)
    # ``--container-launch`` names no other.
    runtime = cast(ScriptedRuntime, prepared.runtime)
    launch = TemplateLaunch(runtime, prepared.image.reference, folder)
    return replace(resolved, prepared=replace(prepared, runtime=launch))
