"""The console on disk: output goes here first, and a mark says how much of it the server has acknowledged."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hpc_agent.files import CorruptFileError, read_record, write_atomic
from hpc_agent.logs import Events

log = Events("console")


class Mark(msgspec.Struct, frozen=True):
    """How far the console has been sent: ``offset`` bytes, the last event stamped ``timestamp_ms``."""

    offset: int = 0
    timestamp_ms: int = 0


@dataclass(frozen=True)
class Chunk:
    """A piece of the console to send; ``end`` is the offset behind it."""

    text: str
    end: int


class Spool:
    """``console.log`` and ``console.offset`` of a run directory. Writers append; the reader may be another process."""

    def __init__(self, console: Path, mark: Path) -> None:
        self._path = console
        self._mark_path = mark
        self._sink: int | None = None
        self._full = False

    def sink(self) -> int:
        """The descriptor that output is appended to; a process may have it as its own stdout."""
        if self._sink is None:
            self._sink = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return self._sink

    def write(self, data: bytes) -> None:
        """Append lines of our own. A full disk costs these lines, never the task: it is said once."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.sink(), view) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            if not self._full:
                log.error("console output is lost: no space left", file=self._path)
            self._full = True
        else:
            self._full = False

    def size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def mark(self) -> Mark:
        try:
            return read_record(self._mark_path, Mark) or Mark()
        except CorruptFileError:
            # Sending some lines twice is better than never sending the rest.
            return Mark()

    def acknowledge(self, mark: Mark) -> None:
        """Remember that everything before ``mark.offset`` is on the server."""
        write_atomic(self._mark_path, msgspec.json.encode(mark), mode=0o600)

    def read(self, offset: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``offset``."""
        try:
            with self._path.open("rb") as source:
                source.seek(offset)
                return source.read(limit)
        except FileNotFoundError:
            return b""

    def close(self) -> None:
        if self._sink is not None:
            os.close(self._sink)
            self._sink = None


def cut(data: bytes, offset: int, limit: int, *, final: bool, collapse: bool) -> Chunk | None:
    """The next chunk of ``data`` (which begins at ``offset``): whole lines, at most ``limit`` bytes.

    A line without its end waits for it, unless it alone fills the limit, ``final`` says that no more will come, or
    it is a progress bar (``\\r``), of which the last complete state is a line. ``collapse`` keeps only that state.
    """
    piece = data[:limit]
    end = piece.rfind(b"\n") + 1
    if not end:
        whole = final or len(piece) == limit
        end = _character_boundary(piece) if whole else piece.rfind(b"\r", 0, len(piece) - 1) + 1
    if not end:
        return None
    text = piece[:end].decode("utf-8", "replace").replace("\b", "")
    return Chunk(_collapse(text) if collapse else text, offset + end)


def _character_boundary(piece: bytes) -> int:
    """The length of ``piece`` without a UTF-8 character that its end cuts through."""
    for back in range(1, min(4, len(piece)) + 1):
        byte = piece[-back]
        if byte & 0xC0 == 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(piece) - back if needed > back and len(piece) > back else len(piece)
        if byte & 0x80 == 0:
            break
    return len(piece)


def _collapse(text: str) -> str:
    """Of every line that rewrites itself with ``\\r``, its last state."""
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
