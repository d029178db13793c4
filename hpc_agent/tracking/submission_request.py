"""Request of a submission: the arguments of ``hpc-agent sbatch`` and the script that they name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent.errors import InputError
from hpc_agent.secret_values import masked_text
from hpc_agent.tracking import sbatch_options
from hpc_agent.tracking.command_line import CommandLine
from hpc_agent.tracking.describe import SubmittedScript, TaskDescription, describe
from hpc_agent.tracking.sbatch_options import effective

_PLAIN = frozenset({"help", "usage", "version", "test-only"})
"""With these sbatch submits nothing."""


class BatchScript(msgspec.Struct, frozen=True):
    """Script that sbatch will read. ``stdin``: its bytes if they came from there."""

    submitted: SubmittedScript
    stdin: bytes | None = None


class SubmissionRequest(msgspec.Struct, frozen=True):
    """A submission, understood. ``options``: those that hold, wherever they were given."""

    command: CommandLine
    options: Mapping[str, str]
    submitted: SubmittedScript
    elements: sbatch_options.ArrayElements
    described: TaskDescription
    outputs: tuple[str, ...] = ()
    """See ``tracked_records.TrackingPlan``."""

    @property
    def parsable(self) -> bool:
        """Whether sbatch prints a number instead of a sentence; there is no variable of the environment for it."""
        return self.command.parsable or "parsable" in self.options

    @property
    def job_name(self) -> str:
        """As Slurm names the job: after the script, ``wrap``, or ``sbatch`` for standard input."""
        name = self.submitted.name
        return self.options.get("job-name") or (name if self.submitted.path else name.partition(".")[0])


def is_submission(command: CommandLine) -> bool:
    return not _PLAIN & command.options.keys()


def read_script(command: CommandLine, here: Path, stdin: Callable[[], bytes]) -> BatchScript:
    """Find and read the script as sbatch does: the file (here, or on PATH), ``--wrap``, or standard input.

    Raises:
        InputError: it cannot be read; sbatch will say so better.
    """
    here = here.resolve()
    if command.script:
        path = _find(command.script, here)
        try:
            text = path.read_bytes().decode("utf-8", "replace")
        except OSError as error:
            raise InputError(f"the script {path} cannot be read: {error.strerror}") from error
        return BatchScript(SubmittedScript(text, path.resolve(), path.name, command.arguments, here))
    if "wrap" in command.options:
        # sbatch gets it as it is; this is for the task, which others see.
        wrapped = masked_text(command.options["wrap"])
        text = f"#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{wrapped}\n"
        return BatchScript(SubmittedScript(text, None, "wrap.sh", (), here))
    data = stdin()
    return BatchScript(SubmittedScript(data.decode("utf-8", "replace"), None, "sbatch.sh", (), here), data)


def _find(name: str, here: Path) -> Path:
    path = here / name
    if "/" in name or path.exists():
        return path
    found = shutil.which(name, mode=os.R_OK)
    return Path(found) if found else path


def parse_request(command: CommandLine, submitted: SubmittedScript, environ: Mapping[str, str]) -> SubmissionRequest:
    """
    Raises:
        InputError: a job that cannot be followed.
    """
    options = effective(command.options, environ, submitted.text)
    if options.get("clusters"):
        raise InputError(f"the job goes to another cluster (--clusters={options['clusters']}) and cannot be followed")
    started_in = (submitted.workdir / options.get("chdir", ".")).resolve()
    elements = sbatch_options.elements(options)
    described = describe(replace(submitted, workdir=started_in), elements)
    outputs = sbatch_options.outputs(options, started_in, is_array=bool(elements.indices))
    return SubmissionRequest(command, options, submitted, elements, described, outputs)
