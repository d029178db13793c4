"""Output files of a tracked job on this machine: where they are, whether they are the job's, what is not here."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from hpc_agent.schedulers.slurm.job_output import (
    OutputNameValues,
    file_name,
    glob_patterns,
    name_values,
    output_paths,
    shown_job,
)
from hpc_agent.telemetry.spool import Spool
from hpc_agent.tracking.tracked_records import OutputStream, TrackedDirectory

_CLOCKS_S = 60.0
"""By so much clocks of the controller and of file servers may differ."""


def find(job: str, names: Sequence[str]) -> tuple[OutputStream, ...]:
    """The output files of a job, with their inodes where they are found here. ``names``: as asked for with the job;
    without any, as Slurm tells them.

    Raises:
        SchedulerUnavailableError: scontrol could not be run.
    """
    return locate(names, shown_job(job), job)


def locate(names: Sequence[str], shown: str, job: str) -> tuple[OutputStream, ...]:
    """As ``find``, with what ``scontrol show job`` says."""
    values = name_values(shown, job)
    paths = output_paths(shown)
    # What Slurm shows has some of the patterns filled in, and others in the wrong way ("%%x", 22.05).
    return tuple(_stream(name, [name, *paths[at : at + 1]], values) for at, name in enumerate(names or paths))


def _stream(shown: str, names: Sequence[str], values: OutputNameValues) -> OutputStream:
    for name in dict.fromkeys(names):
        for pattern in glob_patterns(name, values):
            found = _newest(glob.glob(pattern), values)  # noqa: PTH207 - absolute, and made as such
            if found is not None:
                return found
    return OutputStream(path=file_name(shown, values))


def _newest(paths: Sequence[str], values: OutputNameValues) -> OutputStream | None:
    """Of several, the one that is named after the job's node, else the one that was written last; none that was written
    last before the job began, which is another one's."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 (the inode is what counts)
        except OSError:
            continue
        if len(paths) > 1 and status.st_mtime < values.started - _CLOCKS_S:
            continue
        of_node = bool(values.node) and values.node in Path(path).name
        found.append((of_node, status.st_mtime, OutputStream(path=path, inode=status.st_ino)))
    return max(found, key=lambda item: item[:2])[2] if found else None


def readable(folder: TrackedDirectory, streams: Sequence[OutputStream]) -> list[Spool]:
    """Those of the files that this machine has too, with their marks. One of a node's own disk is not among them."""
    return [Spool(Path(stream.path), folder.mark(number)) for number, stream in enumerate(streams) if is_here(stream)]


def is_here(stream: OutputStream) -> bool:
    try:
        found = os.stat(stream.path)  # noqa: PTH116 (the inode is what counts)
    except OSError:
        return False
    return stream.inode in (0, found.st_ino)


def not_found(streams: Sequence[OutputStream], host: str) -> str:
    """A line for the console about those that this machine does not have; empty if it has all."""
    missing = [stream.path for stream in streams if not is_here(stream)]
    if not missing:
        return ""
    return (
        f"Its output in {' and '.join(missing)} is not shown here: {host} has no such file (it may be on the node's "
        "own disk, or was moved or removed)"
    )


def not_opened(path: str) -> str:
    """What kept Slurm from opening an output file, as far as this machine can tell."""
    folder = Path(path).parent
    if not folder.is_dir():
        return f"its output file {path} could not be opened: there is no folder {folder}"
    return f"its output file {path} could not be opened on its node: is {folder} there too, and writable?"
