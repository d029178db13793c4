"""Files that Slurm writes a job's output to: what ``scontrol show job`` says, and patterns such as ``%j``."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator

import msgspec

from hpc_agent.access import user_name
from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.process import programs
from hpc_agent.schedulers.slurm import commands
from hpc_agent.schedulers.slurm.commands import for_queries

_FIELD = re.compile(r"^\s+(StdOut|StdErr)=(/.*)$", re.MULTILINE)
_TIMEOUT_S = 60.0
_PATTERN = re.compile(r"%(\d*)([A-Za-z%])")
_WIDEST = 10
_NO_ARRAY = "4294967294"
"""What Slurm writes for ``%a`` in a job that is not an element of an array."""


class OutputNameValues(msgspec.Struct, frozen=True):
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


def shown_job(job: str) -> str:
    """What ``scontrol show job`` prints; empty once Slurm has forgotten the job.

    Raises:
        SchedulerUnavailableError: scontrol could not be run.
    """
    try:
        answer = programs.run(commands.show_job(job), timeout=_TIMEOUT_S, env=for_queries(os.environ))
    except ProcessError as error:
        raise SchedulerUnavailableError(f"Slurm gave no information: {error}") from error
    return answer.stdout if answer.ok else ""


def output_paths(text: str) -> tuple[str, ...]:
    """The output files that ``scontrol show job`` names, standard output first; none that is /dev/null."""
    found = {name: path.strip() for name, path in _FIELD.findall(text)}
    paths = dict.fromkeys(path for name in ("StdOut", "StdErr") if (path := found.get(name)))
    return tuple(path for path in paths if path != os.devnull)


def name_values(text: str, job: str) -> OutputNameValues:
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


def glob_patterns(name: str, values: OutputNameValues) -> Iterator[str]:
    """What the file may be called, as patterns for ``glob``, the likeliest first."""
    for pieces in _fillings(name, values):
        yield "".join("*" if piece is None else glob.escape(piece) for piece in pieces)


def file_name(name: str, values: OutputNameValues) -> str:
    """What the file is called most likely, for a user."""
    return "".join("%N" if piece is None else piece for piece in next(_fillings(name, values)))


def _fillings(name: str, values: OutputNameValues) -> Iterator[list[str | None]]:
    """The name with its patterns filled in; None for a node's own host name, which is not known here."""
    if "\\" in name:
        # It turns all patterns off, and quotes the character after it.
        yield [re.sub(r"\\(.?)", r"\1", name)]
        return
    yield _filling(name, values, knows_b=True)
    if "b" in {kind for _, kind in _PATTERN.findall(name)}:
        yield _filling(name, values, knows_b=False)  # versions up to 22.05 leave it as it is


def _filling(name: str, values: OutputNameValues, *, knows_b: bool) -> list[str | None]:
    index = values.index or _NO_ARRAY
    numbers = {"A": values.array or values.job, "a": index, "j": values.job, "J": values.job, "n": "0", "t": "0"}
    if knows_b:
        numbers["b"] = str(int(index) % 10)
    words = {"%": "%", "s": "batch", "u": values.user, "x": values.name}
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
