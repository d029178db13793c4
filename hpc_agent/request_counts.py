"""Counts of the requests that this program makes to scheduler and ClearML server, kept by day under ``hpc.root``.

Each host has a file a day, which its programs add to: ``stats/2026-01-31.login1.json``. Counts are not evidence of
anything: where they cannot be kept they are lost, and nothing waits for them.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.file_records import CorruptFileError, ensure_directory, read_record, write_record
from hpc_agent.logs import EventLog

log = EventLog("stats")

Service = Literal["scheduler", "server"]

KEPT_DAYS = 31
_SAVED_EVERY_S = 60.0
_LOCKED_S = 5.0
_FILE = re.compile(r"(\d{4}-\d{2}-\d{2})\.(.+)\.json")
_LEFT = re.compile(rf"\.{_FILE.pattern}\..+\.tmp")
"""What a program leaves that ends while it saves."""


_Programs = dict[str, dict[str, dict[str, int]]]
"""Program → service → request → how often."""


class _Record(msgspec.Struct):
    """``stats/<day>.<host>.json``: of the day, and of each hour (``00`` to ``23``, local time)."""

    programs: _Programs = msgspec.field(default_factory=dict)
    hours: dict[str, _Programs] = msgspec.field(default_factory=dict)
    """Empty in records of older versions."""


class RequestCounts:
    """Counter of one process. Safe to share between threads."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._counts: Counter[tuple[Service, str]] = Counter()
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._program = ""
        self._commands: frozenset[str] = frozenset()
        self._saves_between = False
        self._saved_at = 0.0

    def count_command(self, argv: Sequence[str]) -> None:
        """Count a program that is started, if it is one of the scheduler's."""
        name = Path(argv[0]).name
        if name in self._commands:
            self.add("scheduler", name)

    def add(self, service: Service, request: str) -> None:
        with self._lock:
            self._counts[service, request] += 1
            is_due = self._saves_between and self._clock.monotonic() - self._saved_at > _SAVED_EVERY_S
            if is_due:
                self._saved_at = self._clock.monotonic()
        if is_due:
            self.save()

    def keep(
        self, folder: Path, program: str, commands: frozenset[str] = frozenset(), *, saves_between: bool = False
    ) -> None:
        """``folder``: where ``save`` writes. ``commands``: those that ask a scheduler. ``saves_between``: save now and
        then in ``add`` too, for a program that goes on and may wait for a file system."""
        with self._lock:
            self._commands = commands
            self._folder, self._program, self._saves_between = folder, program, saves_between
            self._saved_at = self._clock.monotonic()

    def so_far(self) -> int:
        """Requests since the last time they were saved."""
        with self._lock:
            return sum(self._counts.values())

    def forget(self) -> None:
        """In a forked process: its parent keeps what was counted so far."""
        self._lock = threading.Lock()
        self._counts.clear()

    def save(self) -> None:
        """Add what was counted since the last time to the host's file of today, or try again the next time."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            folder = self._folder
        if folder is None or not counts:
            return
        try:
            _add(folder, self._program, counts, self._clock)
        except (OSError, CorruptFileError) as error:
            log.debug("stats.not_saved", folder=folder, error=error)
            with self._lock:
                self._counts.update(counts)

    def save_within(self, seconds: float) -> None:
        """``save``, in a thread: a file system that stalls holds up no end of a program."""
        thread = threading.Thread(target=self.save, name="stats", daemon=True)
        thread.start()
        thread.join(seconds)


COUNTS = RequestCounts()
"""Of this process. Global, as meters are: what makes requests has nothing to do with who reads the counts."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=COUNTS.forget)


def _add(folder: Path, program: str, counts: Mapping[tuple[Service, str], int], clock: Clock) -> None:
    """Add to the file of today, and there to this hour.

    Raises:
        OSError: it cannot be written, or another program holds the lock: one that was stopped may hold it forever.
        CorruptFileError: the file cannot be read.
    """
    from hpc_agent.file_lock import locked_within  # not on every laptop

    if not folder.parent.is_dir():
        return  # no daemon or job has made hpc.root yet, and this is no reason to
    ensure_directory(folder, mode=0o700)
    now = clock.now().astimezone()
    day = now.date()
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())
    path = folder / f"{day.isoformat()}.{host}.json"
    descriptor = os.open(folder / f".{host}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with locked_within(descriptor, _LOCKED_S, clock) as is_ours:
            if not is_ours:
                raise TimeoutError(f"{path} is locked by another program")
            is_new = not path.exists()
            record = read_record(path, _Record) or _Record()
            for programs in (record.programs, record.hours.setdefault(f"{now:%H}", {})):
                services = programs.setdefault(program, {})
                for (service, request), number in counts.items():
                    requests = services.setdefault(service, {})
                    requests[request] = requests.get(request, 0) + number
            write_record(path, record, mode=0o600)
    finally:
        os.close(descriptor)
    if is_new:
        _prune(folder, day - timedelta(days=KEPT_DAYS))


def _prune(folder: Path, first: date) -> None:
    for path in folder.iterdir():
        match = _FILE.fullmatch(path.name) or _LEFT.fullmatch(path.name)
        if match and match[1] < first.isoformat():
            with contextlib.suppress(OSError):
                path.unlink()


class DayCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Requests of one program on one day, or in one hour of it, on all hosts."""

    day: str
    program: str
    scheduler: dict[str, int]
    server: dict[str, int]
    hour: str = ""
    """``00`` to ``23``; empty for a whole day."""


def read_counts(folder: Path, since: date, *, by_hour: bool = False) -> list[DayCounts]:
    """What was kept, in the order of days, hours and programs; files that cannot be read are passed over. A day that an
    older version counted has no hours."""
    found: dict[tuple[str, str, str], dict[str, Counter[str]]] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(folder.iterdir()):
            match = _FILE.fullmatch(path.name)
            if match is None or match[1] < since.isoformat():
                continue
            with contextlib.suppress(CorruptFileError, OSError):
                record = read_record(path, _Record) or _Record()
                hours = (by_hour and record.hours) or {"": record.programs}
                for hour, program, services in _rows(hours):
                    sums = found.setdefault((match[1], hour, program), {"scheduler": Counter(), "server": Counter()})
                    for service in sums:
                        sums[service].update(services.get(service, {}))
    return [
        DayCounts(day, program, dict(sums["scheduler"]), dict(sums["server"]), hour)
        for (day, hour, program), sums in sorted(found.items())
    ]


def _rows(hours: Mapping[str, _Programs]) -> Iterator[tuple[str, str, Mapping[str, Mapping[str, int]]]]:
    for hour, programs in hours.items():
        for program, services in programs.items():
            yield hour, program, services
