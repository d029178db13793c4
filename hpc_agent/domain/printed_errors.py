"""Python's tracebacks in a console: which exceptions were printed, with what they say and where they came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile

import msgspec


class PrintedError(msgspec.Struct, frozen=True):
    """One printed exception."""

    name: str
    message: str
    lines: Sequence[str]
    """What a cause is looked for in: what it says of itself, and those before it in its chain."""
    place: str = ""
    """The last line of the user's own code that it went through."""

    @property
    def is_aftermath(self) -> bool:
        """Whether it only tells that another process has died."""
        return bool(_AFTERMATH.search(self.name) or _AFTERMATH_WORDS.search(self.message))


_AFTERMATH = re.compile(
    r"ChildFailedError|ProcessRaisedException|ProcessExitedException|DistBackendError|DistNetworkError|DistStoreError"
    r"|CalledProcessError|BrokenPipeError|BrokenProcessPool|SystemExit|KeyboardInterrupt|SignalException"
)
_AFTERMATH_WORDS = re.compile(r"NCCL|Connection (?:reset|closed) by peer|Broken pipe")
_HEADER = re.compile(r"Traceback \(most recent call last\)")
_ERROR = re.compile(r"^(?P<name>(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?:: ?(?P<message>.*))?$")
_SYNTAX = re.compile(r"^(?:SyntaxError|IndentationError|TabError): ")
_FRAME = re.compile(r"^\s*File \"(?P<file>[^\"]+)\", line (?P<line>\d+)")
_CHAIN = re.compile(r"^(?:During handling of the above exception|The above exception was the direct cause)")
_STARTS_ANOTHER = re.compile(f"{_HEADER.pattern}|{_CHAIN.pattern}")
_LIBRARY = re.compile(r"/(?:site-packages|dist-packages|lib/python[\d.]+|envs/[^/]+/lib)/|^<")
_MESSAGE_LINES = 8


def printed_errors(lines: Sequence[str]) -> Iterator[PrintedError]:
    """The exceptions that are printed in these lines, in their order."""
    chain: list[str] = []
    for index, line in enumerate(lines):
        if _SYNTAX.match(line):
            # Of the script itself it has no traceback.
            before = [match for earlier in lines[max(index - 5, 0) : index] if (match := _FRAME.match(earlier))]
            name, _, message = line.partition(": ")
            yield PrintedError(name, message, [line], _place(before))
        if not _HEADER.search(line):
            continue
        if not any(_CHAIN.match(earlier) for earlier in lines[max(index - 1, 0) : index]):
            chain = []
        found = _error_after(lines, index)
        if found is None:
            continue
        chain = [*chain, *found.lines]
        yield PrintedError(found.name, found.message, chain, found.place)


def _error_after(lines: Sequence[str], header: int) -> PrintedError | None:
    """The exception of the traceback that begins at ``header``: its first line that is not indented, as an exception
    is written. Notebooks and rich draw boxes and markers before it."""
    frames: list[re.Match[str]] = []
    for index in range(header + 1, len(lines)):
        line = lines[index]
        if _HEADER.search(line):
            return None
        if frame := _FRAME.match(line):
            frames.append(frame)
        elif (match := _ERROR.match(line)) and _is_name(match["name"]):
            rest = takewhile(lambda later: not _STARTS_ANOTHER.search(later), lines[index + 1 : index + _MESSAGE_LINES])
            return PrintedError(match["name"], match["message"] or "", [line, *rest], _place(frames))
    return None


def _is_name(name: str) -> bool:
    """Whether an exception may be called so; other lines of a traceback's box start with a word too."""
    return name.rpartition(".")[2][:1].isupper() or name.endswith(("error", "Error", "Exception"))


def _place(frames: Sequence[re.Match[str]]) -> str:
    own = [frame for frame in frames if not _LIBRARY.search(frame["file"])]
    if not own:
        return ""
    return f"{own[-1]['file'].rpartition('/')[2]}, line {own[-1]['line']}"
