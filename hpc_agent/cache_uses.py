"""Uses of what a shared folder holds: how often, when last, and by which processes now; and what may go by that.

<folder>/<name>                     one byte for each use: size and time tell how many and when
<folder>/.now/<name>/<host>-<pid>   lease of a process that uses it
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.lease import HeartbeatTiming, Lease, lately_held

_MIN_AGE = timedelta(hours=1)
"""What was staged or used more recently may belong to a job whose run directory does not name it yet."""
_HEARTBEAT = HeartbeatTiming(interval=60, expires_after=600)


class Uses(msgspec.Struct, frozen=True):
    """``count`` is about right: processes without write access are not counted."""

    count: int
    last: datetime


class UseRecords:
    """Records of uses in ``folder``, with the access that its parent grants. Names are those of single files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._now = folder / ".now"

    def record_staged(self, name: str) -> None:
        """Note the time at which it was staged for a job; as ``record_use``."""
        with contextlib.suppress(OSError):
            self._counter(name).touch()

    def record_use(self, name: str) -> None:
        """Count a use by a job. Best effort: without write access it is not counted."""
        with contextlib.suppress(OSError), self._counter(name).open("ab") as counter:
            counter.write(b".")

    def hold(self, name: str, clock: Clock) -> None:
        """Keep ``hpc-agent cache prune`` from removing it until this process ends."""
        lease = Lease(self._now / name / f"{socket.gethostname()}-{os.getpid()}", clock, _HEARTBEAT)
        with contextlib.suppress(OSError):  # without write access there is no prune to guard against
            if lease.acquire():
                atexit.register(lease.release)

    def of(self, name: str) -> Uses | None:
        """None if it was neither staged nor used."""
        try:
            status = (self._folder / name).stat()
        except OSError:
            return None
        return Uses(status.st_size, datetime.fromtimestamp(status.st_mtime, timezone.utc))

    def names(self) -> list[str]:
        """All that was staged or used, still there or not."""
        try:
            return sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []

    def held(self, clock: Clock) -> set[str]:
        """What processes use now. Forgets those that have ended."""
        found: set[str] = set()
        for lease in self._now.glob("[!.]*/[!.]*"):
            if lately_held(lease, clock, _HEARTBEAT):
                found.add(lease.parent.name)
            else:
                shutil.rmtree(lease, ignore_errors=True)
        return found

    def forget(self, name: str) -> None:
        """Remove what is recorded of something that is gone."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink(missing_ok=True)
            (self._now / name).rmdir()

    def _counter(self, name: str) -> Path:
        path = self._folder / name
        if not path.exists():
            file_records.ensure_shared_directory(self._folder)
            path.touch()
            file_records.share_like_parent(path)
        return path


class CacheItem(Protocol):
    """Something that can be removed from a cache. ``size`` in bytes."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def last_used(self) -> datetime: ...


Item = TypeVar("Item", bound=CacheItem)


def removable(
    present: Iterable[Item],
    now: datetime,
    kept: Collection[str],
    *,
    max_size: int | None = None,
    older_than: timedelta | None = None,
) -> list[Item]:
    """Items to remove: unused for ``older_than``, and the longest unused until the rest has ``max_size`` bytes.

    Never those in ``kept``, and none that was staged or used within the last hour. Pure.
    """
    by_age = sorted(present, key=lambda item: item.last_used)
    total = sum(item.size for item in by_age)
    found = []
    for item in by_age:
        age = now - item.last_used
        if item.name in kept or age < _MIN_AGE:
            continue
        too_old = older_than is not None and age > older_than
        too_much = max_size is not None and total > max_size
        if too_old or too_much:
            found.append(item)
            total -= item.size
    return found
