"""The files that Slurm writes a job's output to, and how much of them has been sent."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hpc_agent import process
from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.schedulers.environment import for_queries
from hpc_agent.telemetry.spool import Spool
from hpc_agent.tracking.records import Folder, Stream

_FIELD = re.compile(r"^\s+(StdOut|StdErr)=(/.*)$", re.MULTILINE)
_TIMEOUT_S = 60.0


def ask_slurm(job: str) -> tuple[Stream, ...]:
    """The output files of a job that runs or ended minutes ago; none once Slurm has forgotten it.

    Raises:
        SchedulerUnavailableError: scontrol could not be run.
    """
    try:
        answer = process.run(["scontrol", "show", "job", job], timeout=_TIMEOUT_S, env=for_queries(os.environ))
    except ProcessError as error:
        raise SchedulerUnavailableError(f"Slurm gave no information: {error}") from error
    return parse(answer.stdout) if answer.ok else ()


def parse(text: str) -> tuple[Stream, ...]:
    """From ``scontrol show job``, which has each ``%`` filled in; standard output first."""
    found = {name: path.strip() for name, path in _FIELD.findall(text)}
    paths = dict.fromkeys(path for name in ("StdOut", "StdErr") if (path := found.get(name)))
    return tuple(Stream(path=path) for path in paths if path != os.devnull)


def readable(folder: Folder, streams: Sequence[Stream]) -> list[Spool]:
    """Those of the files that this machine has too, with their marks. One of a node's own disk is not among them."""
    return [Spool(Path(stream.path), folder.mark(number)) for number, stream in enumerate(streams) if _is_here(stream)]


def _is_here(stream: Stream) -> bool:
    try:
        found = os.stat(stream.path)  # noqa: PTH116 (the inode is what counts)
    except OSError:
        return False
    return stream.inode in (0, found.st_ino)
