"""Spool of the console: a file that output goes to first, and a checkpoint of what the server has acknowledged."""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

import msgspec

from hpc_agent.logs import EventLog
from hpc_agent.telemetry.checkpoint import Checkpoint, CheckpointFile

log = EventLog("console")

_CHECKED_BYTES = 64


class ConsoleChunk(msgspec.Struct, frozen=True):
    """A piece of the console to send; ``end`` is the offset behind it."""

    text: str
    end: int


class Spool:
    """Console file of a run directory, and its checkpoint. Writers append; the reader may be another process."""

    def __init__(self, console: Path, mark: Path) -> None:
        self._path = console
        self._checkpoints = CheckpointFile(mark)
        self._file: int | None = None
        self._full = False
        self._unmarked = False

    @property
    def path(self) -> Path:
        return self._path

    def open(self) -> int:
        """Make the file where there is none, and keep it open: it can be read even when its name is gone."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        return self._file

    def write(self, data: bytes) -> None:
        """Append lines of our own. A full disk costs these lines, never the task; it is logged once."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.open(), view) :]
        except OSError as error:
            if not self._full:
                log.error("console.output_lost", file=self._path, error=error.strerror)
            self._full = True
        else:
            self._full = False

    def ends_with(self, line: str) -> bool:
        """Whether this is its last line."""
        data = f"{line}\n".encode()
        size = self.size()
        return self.read(max(size - len(data) - 1, 0), len(data) + 1) in (data, b"\n" + data)

    def holds(self, line: str) -> bool:
        """Whether it has this line anywhere; for consoles of a few lines."""
        return f"\n{line}\n".encode() in b"\n" + self.read(0, self.size())

    def size(self) -> int:
        if self._file is not None:
            return os.fstat(self._file).st_size
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def mark(self) -> Checkpoint:
        """The last one; an empty one where there is none that can be read."""
        return self._checkpoints.read()

    def remember(self, mark: Checkpoint) -> None:
        """Write the checkpoint. Where that fails, it is logged once, and the next sender sends again."""
        try:
            self._checkpoints.write(mark)
        except OSError as error:
            if not self._unmarked:
                log.error("console.mark_not_written", file=self._checkpoints.path, error=error.strerror)
            self._unmarked = True

    def close_mark(self) -> None:
        """Nothing is to be remembered for now."""
        self._checkpoints.close()

    def read(self, offset: int, limit: int) -> bytes:
        """Up to ``limit`` bytes from ``offset``: from the file that is written, though its name may be gone."""
        if self._file is not None:
            # Where NFS has lost what was open, the name may still lead there.
            with contextlib.suppress(OSError):
                return os.pread(self._file, limit, offset)
        try:
            with self._path.open("rb") as source:
                source.seek(offset)
                return source.read(limit)
        except FileNotFoundError:
            return b""

    def checksum(self, offset: int) -> str:
        """Of the last bytes before ``offset``, as many as are there."""
        start = max(offset - _CHECKED_BYTES, 0)
        return f"{zlib.crc32(self.read(start, offset - start)):08x}"

    def continues(self, mark: Checkpoint) -> bool:
        """Whether the file still is the one that the mark was made in: as long, and with the same bytes before it.

        A requeued job, or a script, may have emptied it and begun again.
        """
        end = mark.sending.ends[-1] if mark.sending else mark.offset
        if self._size_now() < end:
            return False
        return not mark.before or self.checksum(mark.offset) == mark.before

    def _size_now(self) -> int:
        """Of the open file: its size by name may come from an NFS client's cache."""
        try:
            with self._path.open("rb") as file:
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        self.close_mark()
        if self._file is not None:
            os.close(self._file)
            self._file = None


def cut(data: bytes, offset: int, limit: int, *, final: bool, collapse: bool) -> ConsoleChunk | None:
    """The next chunk of ``data`` (which begins at ``offset``): whole lines, at most ``limit`` bytes.

    A line without its end waits for it, unless it alone fills the limit, ``final`` is true, or
    it is a progress bar (``\\r``), whose last complete state is a line. ``collapse`` keeps only that state.
    """
    piece = data[:limit]
    end = piece.rfind(b"\n") + 1
    if not end:
        whole = final or len(piece) == limit
        end = _character_boundary(piece) if whole else piece.rfind(b"\r", 0, len(piece) - 1) + 1
    if not end:
        return None
    return ConsoleChunk(text_of(piece[:end], collapse=collapse), offset + end)


def text_of(data: bytes, *, collapse: bool) -> str:
    """What is sent of these bytes."""
    text = data.decode("utf-8", "replace").replace("\b", "")
    return _collapse(text) if collapse else text


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
