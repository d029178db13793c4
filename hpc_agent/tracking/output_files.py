"""The files that Slurm writes a job's output to, and how much of them has been sent."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent import process
from hpc_agent.access import user_name
from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.schedulers.slurm.commands import for_queries
from hpc_agent.telemetry.spool import Spool
from hpc_agent.tracking.tracked_records import OutputStream, TrackedDirectory

_FIELD = re.compile(r"^\s+(StdOut|StdErr)=(/.*)$", re.MULTILINE)
_TIMEOUT_S = 60.0
_PATTERN = re.compile(r"%(\d*)([A-Za-z%])")
_WIDEST = 10
_CLOCKS_S = 60.0
"""By so much clocks of the controller and of file servers may differ."""
_NO_ARRAY = "4294967294"
"""What Slurm writes for ``%a`` in a job that is not an element of an array."""


@dataclass(frozen=True)
class OutputNameValues:
    """Values of the patterns in a file's name. Empty: not known."""

    job: str
    """Its own number; of an array's element not the array's."""
    array: str = ""
    index: str = ""
    name: str = ""
    user: str = ""
    node: str = ""
    """The first of its nodes, by its name in Slurm."""
    started: float = 0.0
    """Seconds since 1970, by Slurm's clock."""


def find(job: str, names: Sequence[str]) -> tuple[OutputStream, ...]:
    """The output files of a job, with their inodes where they are found here. ``names``: as asked for with the job;
    without any, as Slurm tells them.

    Raises:
        SchedulerUnavailableError: scontrol could not be run.
    """
    return locate(names, _shown(job), job)


def locate(names: Sequence[str], shown: str, job: str) -> tuple[OutputStream, ...]:
    """As ``find``, with what ``scontrol show job`` says."""
    facts = facts_of(shown, job)
    from_slurm = [stream.path for stream in parse(shown)]
    # What Slurm shows has some of the patterns filled in, and others in the wrong way ("%%x", 22.05).
    return tuple(_stream(name, [name, *from_slurm[at : at + 1]], facts) for at, name in enumerate(names or from_slurm))


def _shown(job: str) -> str:
    """Empty once Slurm has forgotten the job."""
    try:
        answer = process.run(["scontrol", "show", "job", job], timeout=_TIMEOUT_S, env=for_queries(os.environ))
    except ProcessError as error:
        raise SchedulerUnavailableError(f"Slurm gave no information: {error}") from error
    return answer.stdout if answer.ok else ""


def parse(text: str) -> tuple[OutputStream, ...]:
    """From ``scontrol show job``; standard output first."""
    found = {name: path.strip() for name, path in _FIELD.findall(text)}
    paths = dict.fromkeys(path for name in ("StdOut", "StdErr") if (path := found.get(name)))
    return tuple(OutputStream(path=path) for path in paths if path != os.devnull)


def facts_of(text: str, job: str) -> OutputNameValues:
    """From ``scontrol show job``; the job's id alone once Slurm has forgotten it."""

    def field(name: str, pattern: str = r"\S+") -> str:
        match = re.search(rf"(?:^|\s){name}=({pattern})", text)
        return match[1] if match else ""

    array, _, index = job.partition("_")
    user = field("UserId").partition("(")[0] or user_name()
    name = re.search(r"^JobId=.* JobName=(.*)$", text, re.MULTILINE)
    return OutputNameValues(
        job=field("JobId", r"\d+") or array,
        array=field("ArrayJobId", r"\d+") or array,
        index=field("ArrayTaskId", r"\d+") or index,
        name=name[1].strip() if name else "",
        user=user,
        node=field("BatchHost"),
        started=float(field("StartTime", r"\d+") or 0),
    )


def _stream(shown: str, names: Sequence[str], facts: OutputNameValues) -> OutputStream:
    for name in dict.fromkeys(names):
        for pattern in patterns(name, facts):
            found = _newest(glob.glob(pattern), facts)  # noqa: PTH207 - absolute, and made as such
            if found is not None:
                return found
    return OutputStream(path=filled_in(shown, facts))


def patterns(name: str, facts: OutputNameValues) -> Iterator[str]:
    """What the file may be called, as patterns for ``glob``, the likeliest first."""
    for pieces in _fillings(name, facts):
        yield "".join("*" if piece is None else glob.escape(piece) for piece in pieces)


def filled_in(name: str, facts: OutputNameValues) -> str:
    """What the file is called most likely, for a user."""
    return "".join("%N" if piece is None else piece for piece in next(_fillings(name, facts)))


def _fillings(name: str, facts: OutputNameValues) -> Iterator[list[str | None]]:
    """The name with its patterns filled in; None for a node's own host name, which is not known here."""
    if "\\" in name:
        # It turns all patterns off, and quotes the character after it.
        yield [re.sub(r"\\(.?)", r"\1", name)]
        return
    yield _filling(name, facts, knows_b=True)
    if "b" in {kind for _, kind in _PATTERN.findall(name)}:
        yield _filling(name, facts, knows_b=False)  # versions up to 22.05 leave it as it is


def _filling(name: str, facts: OutputNameValues, *, knows_b: bool) -> list[str | None]:
    index = facts.index or _NO_ARRAY
    numbers = {"A": facts.array or facts.job, "a": index, "j": facts.job, "J": facts.job, "n": "0", "t": "0"}
    if knows_b:
        numbers["b"] = str(int(index) % 10)
    words = {"%": "%", "s": "batch", "u": facts.user, "x": facts.name}
    pieces: list[str | None] = []
    end = 0
    for match in _PATTERN.finditer(name):
        width, kind = match.groups()
        pieces.append(name[end : match.start()])
        if kind in numbers:
            pieces.append(numbers[kind].zfill(min(int(width or 0), _WIDEST)))
        else:
            pieces.append(None if kind == "N" else words.get(kind, match[0]) or None)
        end = match.end()
    return [*pieces, name[end:]]


def _newest(paths: Sequence[str], facts: OutputNameValues) -> OutputStream | None:
    """Of several, the one that is named after the job's node, else the one that was written last; none that was written
    last before the job began, which is another one's."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 (the inode is what counts)
        except OSError:
            continue
        if len(paths) > 1 and status.st_mtime < facts.started - _CLOCKS_S:
            continue
        of_node = bool(facts.node) and facts.node in Path(path).name
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
