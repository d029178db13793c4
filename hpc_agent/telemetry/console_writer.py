"""Program that writes a task's output to its console file, and tries again where the file system fails.

    python -I -S console_writer.py FILE MARK

Standard input is the pipe that the task's process prints to. With this process in between the task never meets an error
of the file system (an appending write on NFS fails for good after its client's lease was lost), nor waits for one that
stalls: up to ``LIMIT`` bytes wait here. It outlives the agent: what a task printed before its agent was killed is on
disk anyway. Stderr is a file in memory that takes what the file system refused with, stdout one that says how much is
on disk and how much waits (``PROGRESS``), so that the agent need not ask the file system.

The agent writes its own lines into the same pipe, each after ``MARK``, so that they are in order with the output. The
program ends when no process can print any more, or at the agent's ``FINISH``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import threading
from collections import deque

FINISH = b"\x04"
"""Sent by the agent, after a mark, when its task's process has ended."""
REFUSED = b"refused: "
"""Begins a line on stderr; the file system's error follows."""
LIMIT = 64 << 20
PROGRESS = struct.Struct("=qq")
"""On stdout: the size of the file, and the bytes that were read from the pipe and are not in it yet."""
WRITE_INTERVAL_S = 0.3
"""A shared file system gets what comes within this as one write. The first line after a pause is written at once."""
_BLOCK = 1 << 20
_LONGEST_PAUSE_S = 5.0
_TRIES_AT_THE_END = 8
"""After the last line, with pauses that grow to ``_LONGEST_PAUSE_S``: half a minute."""
_IGNORED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)
"""Meant for the task; Slurm sends some of them to every process of a job."""


class Storage:
    """The file, written by a thread of its own: a write may stall for as long as the file server does."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = -1
        """Open from the first write on."""
        self._at_line_start = _ends_a_line(path)
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._stored = 0
        self._error = ""
        self._fails = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, piece: bytes, *, line: bool = False) -> None:
        """Take a piece of output, or a whole ``line``, which begins on a line of its own.

        Waits while the file system stalls and the memory is full; where it fails instead, the piece is lost.
        """
        if not piece:
            return
        with self._changed:
            while self._size >= LIMIT and not self._fails:
                self._changed.wait()
            if self._size >= LIMIT:
                self._lost += len(piece)
                return
            if self._lost:
                piece, line = self._loss() + piece, True
            if line and not self._at_line_start:
                piece = b"\n" + piece
            self._at_line_start = piece.endswith(b"\n")
            self._pieces.append(piece)
            self._size += len(piece)
            _report_progress(self._stored, self._size)
            self._changed.notify_all()

    def close(self) -> bool:
        """Wait until all is written; False if that was given up."""
        with self._changed:
            if self._lost:
                self._pieces.append(self._loss())
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        return not self._fails

    def _loss(self) -> bytes:
        lost, self._lost = self._lost, 0
        return f"[{lost} bytes of output were lost: {self._error}]\n".encode()

    def _run(self) -> None:
        while (piece := self._next()) and self._write(piece):
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._size >= _BLOCK, WRITE_INTERVAL_S)

    def _next(self) -> bytes:
        with self._changed:
            while not self._pieces and not self._closed:
                self._changed.wait()
            block = bytearray()
            while self._pieces and len(block) < _BLOCK:
                block += self._pieces.popleft()
            return bytes(block)

    def _write(self, piece: bytes) -> bool:
        view = memoryview(piece)
        tries = 0
        while view:
            try:
                if self._file < 0:
                    self._file = _open(self._path)
                # Not where we left off: a console that was emptied meanwhile would begin with as many NULs.
                end = os.lseek(self._file, 0, os.SEEK_END)
                written = os.write(self._file, view)
                self._stored, view = end + written, view[written:]
            except OSError as error:
                if not self._wait(error, tries):
                    return False
                tries += 1
        with self._changed:
            self._size -= len(piece)
            _report_progress(self._stored, self._size)
            self._fails = False
            self._changed.notify_all()
        return True

    def _wait(self, error: OSError, tries: int) -> bool:
        """Before the next try, with the file opened again; False to give up."""
        message = error.strerror or str(error)
        with self._changed:
            if message != self._error:
                self._error = message
                _report(message)
            self._fails = True
            self._changed.notify_all()
            if self._closed and tries >= _TRIES_AT_THE_END:
                return False
        threading.Event().wait(min(0.1 * 2**tries, _LONGEST_PAUSE_S))
        try:
            again = _open(self._path, create=False)
        except OSError:
            return True  # its name may be gone; what is open is still there
        if self._file >= 0:
            _close(self._file)
        self._file = again
        return True


def _open(path: str, *, create: bool = True) -> int:
    """Open at the end. Without O_APPEND: the appending write is the one that NFS refuses after a lost lease, and no
    other process writes here."""
    file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
    os.lseek(file, 0, os.SEEK_END)
    return file


def _close(file: int) -> None:
    with contextlib.suppress(OSError):  # NFS reports the same error again
        os.close(file)


def _ends_a_line(path: str) -> bool:
    """Whether what an earlier writer left there does."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        size = os.fstat(file).st_size
        return not size or os.pread(file, 1, size - 1) == b"\n"
    except OSError:
        return True
    finally:
        _close(file)


def _report_progress(stored: int, waiting: int) -> None:
    with contextlib.suppress(OSError):
        os.pwrite(1, PROGRESS.pack(stored, waiting), 0)


def _report(message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, REFUSED + message.encode() + b"\n")


class Splitter:
    """Splits the agent's own lines from the task's output: a mark is before each, and it may come in pieces."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._held = b""

    def split(self, piece: bytes) -> list[bytes]:
        """The task's output, then what follows each mark. The beginning of what may be a mark is held back."""
        data = self._held + piece
        keep = self._begun(data)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep].split(self._mark)

    def rest(self) -> bytes:
        """What was held back, and was not a mark."""
        held, self._held = self._held, b""
        return held

    def _begun(self, data: bytes) -> int:
        """How many of the last bytes may be the beginning of a mark."""
        longest = min(len(self._mark) - 1, len(data))
        return next((n for n in range(longest, 0, -1) if data.endswith(self._mark[:n])), 0)


def copy(pipe: int, splitter: Splitter, storage: Storage) -> None:
    """Copy until no process can print any more, or the agent's ``FINISH``."""
    while piece := os.read(pipe, 65536):
        output, *ours = splitter.split(piece)
        storage.put(output)
        for line in ours:
            if line.startswith(FINISH):
                return
            storage.put(line, line=True)
    storage.put(splitter.rest())


def main() -> int:
    path, mark = sys.argv[1:]
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    storage = Storage(path)
    copy(0, Splitter(mark.encode()), storage)
    return 0 if storage.close() else 1


if __name__ == "__main__":
    sys.exit(main())
