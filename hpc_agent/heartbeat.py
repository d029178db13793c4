"""Heartbeats on a shared file system: a file that a living process rewrites, and how long one has been silent.

An outage of the file server silences all that write to it, and clocks of machines differ. So time counts only
between two reads that were answered at once, on the watcher's own clock.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from hpc_agent.clock import Clock

QUICK_S = 1.0
"""A read that takes longer was held up: the writer may be so too."""
_CONFIRM_BEATS = 3


class HeartbeatTiming(msgspec.Struct, frozen=True):
    """Seconds between two beats, without a new beat until a holder counts as dead, and between two looks of those
    who wait (a thirtieth of the time waited, within these bounds: fifty who wait must not busy the file server).

    60 s: an NFS client may show the old content of a file for as long (``acregmax``), and a busy login node stalls.
    """

    interval: float = 5.0
    expires_after: float = 60.0
    poll: tuple[float, float] = (0.1, 2.0)


class Silence:
    """Silence of a writer: watches a text that changes while the writer lives.

    ``read`` returns the text, None where it cannot be read now.
    """

    def __init__(self, read: Callable[[], str | None], clock: Clock, pace: HeartbeatTiming = HeartbeatTiming()) -> None:
        self._read = read
        self._clock = clock
        self._pace = pace
        self._seen: str | None = None
        self._since: float | None = None

    def seconds(self) -> float:
        """Seconds, by this process's clock, for which it has not changed while all reads were fast."""
        began = self._clock.monotonic()
        content = self._read()
        now = self._clock.monotonic()
        if content is None or now - began > QUICK_S:
            self._since = None
            return 0.0
        if self._since is None or content != self._seen:
            self._seen, self._since = content, now
        return now - self._since

    def is_dead(self) -> bool:
        """Whether the writer is dead as far as can be seen. A few more intervals are waited for first: an
        outage between two looks goes unseen, and the writer goes on as soon as it is over."""
        if self.seconds() <= self._pace.expires_after:
            return False
        self._clock.sleep(_CONFIRM_BEATS * self._pace.interval)
        return self.seconds() > self._pace.expires_after

    @property
    def text(self) -> str | None:
        """As it was last read."""
        return self._seen


class Heartbeat:
    """Heartbeat file that a thread rewrites until ``stop``, which removes it."""

    def __init__(self, path: Path, clock: Clock, pace: HeartbeatTiming = HeartbeatTiming()) -> None:
        self._path = path
        self._clock = clock
        self._pace = pace
        self._identity = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Beat once now, and from now on."""
        self._write(0)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        if (read_text(self._path) or "").startswith(self._identity):
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _run(self) -> None:
        count = 0
        while not self._clock.wait(self._stopped, self._pace.interval):
            count += 1
            text = read_text(self._path)
            if text and not text.startswith(self._identity):
                return  # another one has the name now
            self._write(count)

    def _write(self, count: int) -> None:
        # A missed beat is made up by the next one.
        with contextlib.suppress(OSError):
            write_in_place(self._path, f"{self._identity} {count}\n", mode=0o600)


def read_text(path: Path) -> str | None:
    """Content of the file; empty if it does not exist, None if that is not known now."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError:
        return None


def write_in_place(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Not renamed: close-to-open shows other NFS clients the new content of the same file at once. And not emptied
    first: a reader between the two, even this process, would find nothing."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, mode)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def age(path: Path, folder: Path, clock: Clock) -> float | None:
    """Seconds since the file was written, by the clock of the file server; None if it is not there.

    Of the open file: the time by name may come from a cache. What the time is there, a new file in ``folder`` tells.
    """
    try:
        with path.open("rb") as file:
            written = os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    return _time_at(folder, clock) - written


def _time_at(folder: Path, clock: Clock) -> float:
    probe = folder / f".{secrets.token_hex(6)}.time"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return clock.now().timestamp()  # not ours to write to: our own clock has to do
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            probe.unlink()
