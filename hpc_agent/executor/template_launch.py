"""Containers that the job's own script starts, by the function that its template became (``submission.glue_template``).

The function has the template's command, as in ``srun singularity exec --uts "$@"``; it is given the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_agent.containers.runtime_api import Argv, ContainerSpec, Runtime
from hpc_agent.file_records import ensure_directory, write_atomic
from hpc_agent.image_resolver import ResolvedContainer
from hpc_agent.submission.glue_template import LAUNCH_FUNCTION

_CALL = f"""\
export PATH="$1:$PATH" HPC_AGENT_LAUNCH_IMAGE="$2"
shift 2
# The command leads a process group of its own, so that it gets the signals that are passed on, and no others.
set -m
(
    # This shell stays to report how the command ends; to that the signals mean what they always mean.
    trap : TERM INT HUP QUIT USR1 USR2
    {LAUNCH_FUNCTION} "$@"
) </dev/null &
child=$!
pass() {{
    signalled=1
    case $(declare -f {LAUNCH_FUNCTION}) in
        # srun takes a SIGTERM as an order to kill its step at once: the step's processes get the signal from Slurm.
        *srun*) scancel --signal="$1" "$SLURM_JOB_ID" ;;
        *) kill -"$1" -- "-$child" ;;
    esac 2>/dev/null
}}
for name in TERM INT HUP QUIT USR1 USR2; do trap "pass $name" "$name"; done
while :; do
    signalled= code=0
    wait "$child" || code=$?
    # A wait that a signal interrupted does not mean that the command has ended.
    [ -n "$signalled" ] || exit "$code"
    kill -0 "$child" 2>/dev/null && continue
    again=0
    wait "$child" 2>/dev/null || again=$?
    # 127: the first wait has taken its exit code.
    [ "$again" = 127 ] && exit "$code"
    exit "$again"
done
"""

_SRUN = """\
#!/bin/bash
# srun, given container options by a template and by the agent. pyxis takes the last of several --container-mounts: they
# become one. The template's image holds, unless it is the task's, which the shared folder may have as a file.
words=() mounts= image=
while [ $# -gt 0 ]; do
    case $1 in
        --container-mounts | --container-image) set -- "$1=$2" "${@:3}"; continue ;;
        --container-mounts=*) mounts=${mounts:+$mounts,}${1#*=} ;;
        --container-image=*) [ -n "$image" ] && [ "$image" != "$HPC_AGENT_LAUNCH_IMAGE" ] || image=${1#*=} ;;
        *) words+=("$1") ;;
    esac
    shift
done
exec @srun@ ${image:+"--container-image=$image"} ${mounts:+"--container-mounts=$mounts"} "${words[@]}"
"""


@dataclass(frozen=True)
class TemplateLaunch:
    """A ``Runtime`` whose command is in the job's script."""

    runtime: Runtime
    reference: str
    """The image as the task or the configuration names it."""
    bin_dir: Path
    """Folder that is first on the function's PATH."""

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
        words = _without_command(self.runtime.wrap(spec))
        return ["bash", "-c", _CALL, LAUNCH_FUNCTION, str(self.bin_dir), self.reference, *words]

    def remove(self, name: str) -> Argv | None:
        return self.runtime.remove(name)

    def fetch(self, reference: str, into: Path) -> Sequence[Argv]:
        return self.runtime.fetch(reference, into)


def _without_command(argv: Argv) -> Argv:
    """The arguments without the program, which the template names. Variables of the node reach the container as the
    template's author chose."""
    words = argv[1:]
    return [word for word in words[1:] if word != "--cleanenv"] if words[:1] == ["exec"] else words


def launched_by_script(resolved: ResolvedContainer, run_dir: Path) -> ResolvedContainer:
    """The container as the job's script starts it. What the function needs is written to ``run_dir``."""
    prepared = resolved.prepared
    folder = ensure_directory(run_dir / "bin", mode=0o700)
    if prepared.runtime.name == "pyxis":
        write_atomic(folder / "srun", _SRUN.replace("@srun@", prepared.runtime.program).encode(), mode=0o700)
    launch = TemplateLaunch(prepared.runtime, prepared.image.reference, folder)
    return replace(resolved, prepared=replace(prepared, runtime=launch))
