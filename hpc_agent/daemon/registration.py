"""Registry of daemons: a record of each, in a folder that all machines of a cluster may share.

A record outlives its daemon's death, a process number comes back: nothing is signalled that is not certainly ours. What
runs on another machine is named, and its name is free again when its heartbeat has not changed for long enough.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import WorkerId
from hpc_agent.errors import HpcAgentError
from hpc_agent.file_lock import locked_within
from hpc_agent.file_records import CorruptFileError
from hpc_agent.heartbeat import Heartbeat, HeartbeatTiming, Silence, age, read_text
from hpc_agent.logs import EventLog
from hpc_agent.process_id import ProcessId, process_id

log = EventLog("registration")

_LOCK_S = 10.0
_BEAT = "beat"
"""Suffix of the file that a daemon rewrites while it lives."""
_LADDER = ((signal.SIGTERM, 10.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
"""As the reference stops its agents. A daemon may be killed on any line: its jobs go on, the next one takes over."""


class RegistrationError(HpcAgentError):
    """A daemon is in the way, or not there, or not ours to stop."""


class DaemonRecord(msgspec.Struct, frozen=True):
    """A daemon that was started. ``slot``: its number among those of this machine that have no name of their own."""

    worker: WorkerId
    host: str
    process: ProcessId
    since: datetime
    slot: int | None = None
    flags: Mapping[str, object] | None = None
    """What it was started with, by the names of the flags."""
    beats: bool = False
    """Whether it gives signs of life; daemons of older versions do not."""

    @property
    def queues(self) -> tuple[str, ...]:
        """Names or ids of the queues that it was started with; ``default`` where it names none."""
        named = (self.flags or {}).get("queues")
        if not isinstance(named, (list, tuple)) or not named:
            return ("default",)
        return tuple(str(queue).partition("=")[0] for queue in named)


class DaemonRegistry:
    """``folder`` holds ``<worker>.json`` of each daemon."""

    def __init__(
        self,
        folder: Path,
        host: str,
        clock: Clock,
        ladder: Sequence[tuple[signal.Signals, float]] = _LADDER,
        pace: HeartbeatTiming = HeartbeatTiming(),
    ) -> None:
        """``ladder``: the signals that end one, each with the seconds it is given. ``pace``: of their heartbeats."""
        self.folder = folder
        self._ladder = ladder
        self._host = host
        self._clock = clock
        self._pace = pace
        self._heartbeats: dict[WorkerId, Heartbeat] = {}

    def file(self, worker: WorkerId, suffix: str) -> Path:
        """A file of a daemon's own next to its record."""
        return self.folder / f"{re.sub(r'[^0-9A-Za-z_.:,@=+-]', '_', worker)}.{suffix}"

    def register(
        self,
        worker: Callable[[int], WorkerId],
        *,
        numbered: bool,
        flags: Mapping[str, object],
        waiting: Callable[[str], None] = lambda _line: None,
    ) -> DaemonRecord:
        """Record this process as a daemon. ``worker`` makes its id from a slot, the smallest that is free, where
        ``numbered`` says that it does. ``waiting`` is called, once, if another machine's daemon has to be watched
        first.

        Raises:
            RegistrationError: a daemon of that id is running, or may be, on another machine.
        """
        file_records.ensure_directory(self.folder, mode=0o700)
        silent: list[DaemonRecord] = []
        while True:
            with self._lock():
                id, slot = self._choose(worker, numbered)
                other = next((found for found in self.all() if found.worker == id), None)
                if other is None or other in silent or self.is_running(other) is False:
                    return self._record(id, slot, flags)
                self._refuse_second(other)
            self._watch(other, waiting)
            silent.append(other)

    def _choose(self, worker: Callable[[int], WorkerId], numbered: bool) -> tuple[WorkerId, int | None]:
        recorded = self.all()
        taken = {other.slot for other in recorded if self.is_running(other) is not False}
        slot = next(number for number in range(len(recorded) + 1) if number not in taken) if numbered else None
        return worker(slot or 0), slot

    def _record(self, id: WorkerId, slot: int | None, flags: Mapping[str, object]) -> DaemonRecord:
        own = process_id(os.getpid())
        assert own is not None, "we are running"
        found = DaemonRecord(id, self._host, own, self._clock.now(), slot, flags, beats=True)
        beat = self.file(id, _BEAT)
        with suppress(FileNotFoundError):
            beat.unlink()  # of the daemon that had the name before: its next beat finds that the name is taken
        file_records.write_record(self.file(id, "json"), found, mode=0o600)
        self._heartbeats[id] = Heartbeat(beat, self._clock, self._pace)
        self._heartbeats[id].start()
        return found

    def _watch(self, other: DaemonRecord, waiting: Callable[[str], None]) -> None:
        """Return once a daemon of another machine is certainly silent.

        Raises:
            RegistrationError: it gave a sign of life, or nothing can be read.
        """
        silence = Silence(lambda: read_text(self.file(other.worker, _BEAT)), self._clock, self._pace)
        silence.seconds()
        before = silence.text
        waiting(
            f"A daemon {other.worker} was on {other.host} and gives no sign of life: watching for "
            f"{self._pace.expires_after:g} s whether it is dead"
        )
        deadline = self._clock.monotonic() + 5 * self._pace.expires_after
        while not silence.is_dead():
            if silence.text != before or self._clock.monotonic() > deadline:
                raise self._elsewhere(other)
            self._clock.sleep(self._pace.interval / 2)
        log.warning("daemon.name_taken_over", worker=other.worker, host=other.host)

    def last_beat(self, daemon: DaemonRecord) -> float | None:
        """Seconds since its last sign of life, by the file server's clock; None where it gives none."""
        return age(self.file(daemon.worker, _BEAT), self.folder, self._clock) if daemon.beats else None

    def unregister(self, daemon: DaemonRecord) -> None:
        """Forget this daemon, unless another has its name by now."""
        heartbeat = self._heartbeats.pop(daemon.worker, None)
        if heartbeat is not None:
            heartbeat.stop()
        path = self.file(daemon.worker, "json")
        with suppress(CorruptFileError):
            if file_records.read_record(path, DaemonRecord) == daemon:
                path.unlink(missing_ok=True)
                self.file(daemon.worker, _BEAT).unlink(missing_ok=True)

    def all(self) -> list[DaemonRecord]:
        """Every record, by worker id; those of dead daemons too."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = file_records.read_record(path, DaemonRecord)
            except CorruptFileError as error:
                log.warning("daemon.record_unreadable", error=error)
                continue
            if record is not None:
                found.append(record)
        return sorted(found, key=lambda record: record.worker)

    def is_running(self, daemon: DaemonRecord) -> bool | None:
        """Whether the daemon runs; None if it is on another machine, where that cannot be seen."""
        return daemon.process.is_running() if daemon.host == self._host else None

    def running(self) -> list[DaemonRecord]:
        """Those of this machine that run, by worker id."""
        return [daemon for daemon in self.all() if self.is_running(daemon)]

    def stop(self, daemon: DaemonRecord) -> None:
        """End a daemon of this machine, and wait until it is gone.

        Raises:
            RegistrationError: it is on another machine, or another user's, or did not end.
        """
        if daemon.host != self._host:
            raise RegistrationError(
                f"the daemon {daemon.worker} runs on {daemon.host}: stop it there; this is {self._host}"
            )
        for number, timeout in self._ladder:
            if not _signal(daemon, number) or self._gone_within(daemon.process, timeout):
                self.unregister(daemon)  # one that was killed could not do it
                return
        raise RegistrationError(f"the daemon {daemon.worker} (process {daemon.process.pid}) did not end, even killed")

    def _gone_within(self, process: ProcessId, seconds: float) -> bool:
        deadline = self._clock.monotonic() + seconds
        while process.is_running():
            if self._clock.monotonic() > deadline:
                return False
            self._clock.sleep(0.05)
        return True

    def _refuse_second(self, other: DaemonRecord) -> None:
        """
        Raises:
            RegistrationError: it runs, or lately did on another machine.
        """
        if self.is_running(other):
            raise RegistrationError(
                f"a daemon {other.worker} is running already (process {other.process.pid}, since "
                f"{other.since:%Y-%m-%d %H:%M} UTC): stop it with --stop, or give this one a name of its own with "
                "agent.worker_id or CLEARML_WORKER_ID"
            )
        silent = self.last_beat(other)
        if not other.beats or (silent is not None and silent < self._pace.expires_after):
            raise self._elsewhere(other)

    def _elsewhere(self, other: DaemonRecord) -> RegistrationError:
        return RegistrationError(
            f"a daemon {other.worker} is running on {other.host}, or died there: stop it there with --stop, give "
            f"this one a name of its own, or, if it is certainly gone, remove {self.file(other.worker, 'json')}"
            + (f"; one that is silent for {self._pace.expires_after:g} s leaves its name" if other.beats else "")
        )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One daemon at a time looks who else is there. The kernel drops the lock with its holder."""
        with (self.folder / "lock").open("w", encoding="utf-8") as lock, ExitStack() as stack:
            try:
                if not stack.enter_context(locked_within(lock.fileno(), _LOCK_S, self._clock)):
                    log.warning("daemon.lock_held", file=lock.name)
            except OSError as error:
                # A file system without locks: two daemons that start in the same millisecond may not see each other.
                log.debug("daemon.lock_unavailable", error=error)
            yield


def _signal(daemon: DaemonRecord, number: int) -> bool:
    """Signal the very process that the record names; False when it is gone."""
    process = daemon.process
    try:
        with _held(process.pid) as handle:
            # Only now: while it is held its number cannot go to another process.
            if not process.is_running():
                return False
            if handle is None:
                os.kill(process.pid, number)
            else:
                signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        raise RegistrationError(f"the daemon {daemon.worker} is another user's: only its owner can stop it") from None
    return True


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """A handle of the process that has this number now; None where the kernel is older than 5.3."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def matching(daemons: Sequence[DaemonRecord], flags: Mapping[str, object]) -> list[DaemonRecord]:
    """Those that were started with these flags, among others."""
    return [daemon for daemon in daemons if flags.items() <= (daemon.flags or {}).items()]
