"""Pipe that a task prints to, and the process at its other end that writes the console file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import select
import struct
import sys
import termios
import threading
from collections import deque
from pathlib import Path

from hpc_agent.errors import ProcessError
from hpc_agent.logs import EventLog
from hpc_agent.process.background import Helper
from hpc_agent.telemetry import console_writer

log = EventLog("console")

_PIPE_BYTES = 1 << 20
_AGAIN_S = 1.0


class ConsolePipe:
    """Pipe of one run; ``close`` when the task's process has ended. Nothing else here waits for the file system."""

    def __init__(self, file: Path) -> None:
        """
        Raises:
            ProcessError: the writer could not be started.
        """
        self._file = file
        # Kept open on both sides: the death of the writer causes no SIGPIPE for the task, another one goes on from
        # there.
        self._output, self.sink = _pipe()
        """``sink``: the descriptor for the stdout and stderr of the task's process."""
        # Opened again: only we do not wait where the pipe is full, the task does.
        self._own = os.open(f"/proc/self/fd/{self.sink}", os.O_WRONLY | os.O_NONBLOCK)
        self._mark = f"\x1e{secrets.token_hex(8)}"
        self._pending: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._troubles = os.memfd_create("console-troubles")
        self._progress = os.memfd_create("console-progress")
        self._finishing = threading.Event()
        self._ended = threading.Event()
        self._complete = False
        self._writer = self._start()
        threading.Thread(target=self._keep, name="console", daemon=True).start()

    def write(self, data: bytes) -> None:
        """Whole lines of our own, which begin on a line of their own."""
        data = self._mark.encode() + data
        with self._lock:
            if self._own < 0:
                return
            # Up to PIPE_BUF bytes are written as one piece or not at all.
            self._pending += [data[at : at + select.PIPE_BUF] for at in range(0, len(data), select.PIPE_BUF)]
            with contextlib.suppress(BlockingIOError):  # the file system stalls; the next line takes this one along
                while self._pending:
                    os.write(self._own, self._pending[0])
                    self._pending.popleft()

    def close(self, seconds: float) -> bool:
        """Whether all that was printed is in the file; False if the file system does not take it within ``seconds``,
        and may be asked again."""
        if not self.closed:
            self._finishing.set()
            self.write(console_writer.FINISH)
            os.close(self.sink)
            with self._lock:  # its number is another file's at once, which others would write into
                os.close(self._own)
                self._own = -1
        if not self._ended.wait(seconds):
            log.error("console.not_written", file=self._file, error=self.write_error)
        return self._complete

    @property
    def empty(self) -> bool:
        """Whether the writer has read all that was printed so far, and none of it waits."""
        unread = struct.unpack("i", fcntl.ioctl(self._output, termios.FIONREAD, bytes(4)))
        return unread == (0,) and self._written()[1] == 0

    @property
    def size(self) -> int:
        """Of the file after the writer's last write; 0 before its first."""
        return self._written()[0]

    def _written(self) -> tuple[int, int]:
        progress = os.pread(self._progress, console_writer.PROGRESS.size, 0)
        if len(progress) < console_writer.PROGRESS.size:
            return 0, 0
        stored, waiting = console_writer.PROGRESS.unpack(progress)
        return stored, waiting

    @property
    def closed(self) -> bool:
        return self._finishing.is_set()

    @property
    def write_error(self) -> str:
        """Errors with which the file system refused output; empty if it did not."""
        lines = os.pread(self._troubles, 4096, 0).split(b"\n")
        errors = [
            line.removeprefix(console_writer.REFUSED) for line in lines if line.startswith(console_writer.REFUSED)
        ]
        return ", ".join(dict.fromkeys(error.decode("utf-8", "replace") for error in errors))

    @property
    def writer(self) -> int:
        """The process that writes now."""
        return self._writer.pid

    def _start(self) -> Helper:
        program = [sys.executable, "-I", "-S", console_writer.__file__, str(self._file), self._mark]
        return Helper(program, stdin=self._output, stdout=self._progress, stderr=self._troubles)

    def _keep(self) -> None:
        """Start another writer where one was killed; what it had read and not written is lost."""
        while True:
            code = self._writer.wait()
            if code == 0 or (self._finishing.is_set() and code == 1):
                break
            log.error("console.writer_ended", file=self._file, code=code)
            self._ended.wait(_AGAIN_S)
            try:
                self._writer = self._start()
            except ProcessError as error:
                log.error("console.writer_not_started", error=error)
        self._complete = code == 0
        self._ended.set()
        os.close(self._output)


def _pipe() -> tuple[int, int]:
    reads, writes = os.pipe()
    with contextlib.suppress(OSError):  # beyond the user's share of pipe memory: less of what is printed waits here
        fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return reads, writes
