"""Lease on a piece of work, held in a folder on a shared file system. It saves duplicate work and nothing else.

The process that makes the folder holds the lease, and rewrites a heartbeat in it while working. A lease without a
heartbeat is taken over. Two holders at once are possible (a machine that was suspended wakes up); what they make must
therefore be published in a way that is right without any lease, by an atomic rename.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.heartbeat import HeartbeatTiming, Silence, age, read_text, write_in_place
from hpc_agent.process_id import start_ticks

__all__ = ["HeartbeatTiming", "Lease", "lately_held", "only_one"]

_OWNER = "owner"


class Lease:
    """One try at holding the lease ``path``."""

    def __init__(self, path: Path, clock: Clock, pace: HeartbeatTiming = HeartbeatTiming()) -> None:
        self._path = path
        self._clock = clock
        self._pace = pace
        self._identity = f"{socket.gethostname()} {os.getpid()} {start_ticks(os.getpid())} {secrets.token_hex(8)}"
        self._stopped = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._silence = Silence(self._read, clock, pace)

    def acquire(self) -> bool:
        """Take the lease unless a living process holds it. Ask again later if not: a death is seen by watching."""
        if self._read() != "":
            if not self._holder_is_dead():
                return False
            self._evict()
        if not self._make():
            return False
        self._beating.start()
        return True

    def _make(self) -> bool:
        """With its owner's name in it from the first moment: the death of an unnamed maker could not be noticed."""
        file_records.ensure_shared_directory(self._path.parent)
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.new")
        draft.mkdir()
        try:
            self._write(0, draft)
            for path in (draft, draft / _OWNER):
                file_records.share_like_parent(path)
            return file_records.rename_new(draft, self._path)
        finally:
            if draft.exists():
                _remove(draft)

    def is_held(self) -> bool:
        """Whether it is still ours: a holder that was suspended for long is taken for dead. A file server that does not
        answer has not given it to another process."""
        return self._is_ours(self._read())

    def _is_ours(self, content: str | None) -> bool:
        return content is None or content.startswith(self._identity)

    def release(self) -> None:
        """Give the lease back; one that was taken over meanwhile is left to its new holder."""
        self._stopped.set()
        self._beating.join()
        if (self._read() or "").startswith(self._identity):
            _remove(self._path)

    def _beat(self) -> None:
        count = 0
        while not self._clock.wait(self._stopped, self._pace.interval):
            count += 1
            if not self._is_ours(self._read()):
                return
            # A missed beat is made up by the next one, and the lease carries no correctness.
            with contextlib.suppress(OSError):
                self._write(count)

    def _write(self, count: int, folder: Path | None = None) -> None:
        with contextlib.suppress(FileNotFoundError):
            write_in_place((folder or self._path) / _OWNER, f"{self._identity} {count}\n")

    def _read(self) -> str | None:
        return read_text(self._path / _OWNER)

    def _holder_is_dead(self) -> bool:
        return _process_is_gone(self._read() or "") or self._silence.is_dead()

    def _evict(self) -> None:
        """Move a dead lease out of the way; a rename, so that of two who try only one does."""
        grave = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.dead")
        try:
            self._path.rename(grave)
        except OSError:
            return
        _remove(grave)


def lately_held(path: Path, clock: Clock, pace: HeartbeatTiming = HeartbeatTiming()) -> bool:
    """Whether a living process seems to hold the lease, from one look, which may be wrong for one interval."""
    owner = path / _OWNER
    silent = age(owner, path.parent, clock)
    return silent is not None and abs(silent) < pace.expires_after and not _process_is_gone(read_text(owner) or "")


def _process_is_gone(owner: str) -> bool:
    """Whether the holder was a process of this host that no longer runs: no need to watch its heartbeat then."""
    try:
        host, pid, ticks, _, _ = owner.split()
        return host == socket.gethostname() and str(start_ticks(int(pid))) != ticks
    except ValueError:
        return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        (path / _OWNER).unlink(missing_ok=True)
        path.rmdir()


@contextmanager
def only_one(
    path: Path,
    clock: Clock,
    *,
    done: Callable[[], bool],
    waiting: Callable[[], None] = lambda: None,
    pace: HeartbeatTiming = HeartbeatTiming(),
) -> Iterator[bool]:
    """Enter with True as the one who does the work, or with False once ``done`` says that another has done it.

    ``waiting`` is called once when another process is at work. A holder that fails or dies lets the next one try.
    """
    lease = Lease(path, clock, pace)
    began = clock.monotonic()
    announced = False
    while not lease.acquire():
        if done():
            yield False
            return
        if not announced:
            waiting()
            announced = True
        shortest, longest = pace.poll
        clock.sleep(min(longest, max(shortest, (clock.monotonic() - began) / 30)))
    try:
        yield not done()
    finally:
        lease.release()
