"""Pruner of old run directories of tasks that are done, and of folders of sessions."""

from __future__ import annotations

import contextlib
import shutil
import threading
from datetime import datetime, timedelta
from pathlib import Path

from hpc_agent.clock import Clock
from hpc_agent.domain.attempt import Attempt
from hpc_agent.file_records import CorruptFileError, ensure_directory, read_record, write_record
from hpc_agent.logs import EventLog
from hpc_agent.runs.attempt_records import Record
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.runs.session_folders import SessionFolders

log = EventLog("prune")

_EVERY = timedelta(hours=6)
_ASKED_EVERY_S = 600.0
_UNUSED_S = 3600.0
_SETTLED = "settled.json"


class _SweepRecord(Record, frozen=True, kw_only=True):
    """``runs/.swept.json``: when all run directories were last looked at, by whichever daemon."""

    at: datetime


class Pruner:
    """Sweeps in a thread of its own: it looks at every run directory there is, which may be 100,000."""

    def __init__(self, runs: RunsFolder, sessions: SessionFolders, keep_days: int, clock: Clock) -> None:
        """``keep_days``: 0 keeps them all."""
        self._runs = runs
        self._sessions = sessions
        self._keep = timedelta(days=keep_days)
        self._clock = clock
        self._next = clock.monotonic()
        self._thread: threading.Thread | None = None

    def turn(self, *, wait: bool = False) -> None:
        """Start a sweep a few times a day, all daemons together; ``wait`` for its end."""
        if self._clock.monotonic() < self._next or (self._thread and self._thread.is_alive()):
            return
        self._next = self._clock.monotonic() + _ASKED_EVERY_S
        if not self._is_due():
            return
        self._thread = threading.Thread(target=self._sweep, name="prune", daemon=True)
        self._thread.start()
        if wait:
            self._thread.join()

    def _is_due(self) -> bool:
        try:
            last = read_record(self._record, _SweepRecord)
        except (CorruptFileError, OSError):
            return True
        return last is None or abs(self._clock.now() - last.at) >= _EVERY

    def _sweep(self) -> None:
        try:
            self._note()
            self._prune()
        except Exception as error:  # noqa: BLE001 - the top of a thread; the next sweep goes on from there
            log.error("runs.not_pruned", error=error, trace=not isinstance(error, OSError))

    def _note(self) -> None:
        """First: a sweep that fails is not begun again at once."""
        with contextlib.suppress(OSError):
            ensure_directory(self._runs.path, mode=0o700)
            write_record(self._record, _SweepRecord(at=self._clock.now()))

    def _prune(self) -> None:
        removed = 0
        index = self._runs.open_attempts
        indexed = index.load() or set()
        for task in self._runs.tasks():
            for directory in self._runs.attempts(task):
                is_settled, is_old = self._age(directory)
                if is_old:
                    _remove(directory)
                    removed += 1
                elif not is_settled and directory.attempt not in indexed:
                    # Of another version, or deleted from the index.
                    index.add(directory.attempt)
            self._runs.drop_if_empty(task)
        self._drop_unused(indexed)
        self._drop_arrays()
        if removed:
            log.info("runs.pruned", count=removed)
        # After the runs: the folder of a session goes with the last one of its task.
        if self._keep and (of_sessions := self._sessions.remove_old(self._clock.now() - self._keep)):
            log.info("sessions.pruned", count=of_sessions)

    def _drop_unused(self, indexed: set[Attempt]) -> None:
        """Leave out of the index what has no run directory, and is not about to get one."""
        index = self._runs.open_attempts
        for attempt in indexed:
            if not self._runs.of(attempt).path.exists() and index.age(attempt, self._record) > _UNUSED_S:
                index.remove(attempt)

    def _drop_arrays(self) -> None:
        """Remove folders of job arrays, none of whose jobs has a run directory any more."""
        with contextlib.suppress(FileNotFoundError):
            swept = self._record.stat().st_mtime  # by the clock of the file server
            for folder in (self._runs.path / ".arrays").iterdir():
                is_new = swept - folder.stat().st_mtime < _UNUSED_S
                if not is_new and not any(path.is_symlink() and path.exists() for path in folder.iterdir()):
                    shutil.rmtree(folder, ignore_errors=True)

    def _age(self, directory: RunDirectory) -> tuple[bool, bool]:
        """Whether a daemon marked it as done, and did so long ago; anything else may still be needed."""
        try:
            settled = directory.settled()
        except (CorruptFileError, OSError):
            return False, False
        return settled is not None, bool(self._keep and settled and settled.at < self._clock.now() - self._keep)

    @property
    def _record(self) -> Path:
        return self._runs.path / ".swept.json"


def _remove(directory: RunDirectory) -> None:
    """The record that it is done last: what a death leaves must not look like an open attempt."""
    with contextlib.suppress(OSError):
        for name in directory.names() - {_SETTLED}:
            path = directory.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        shutil.rmtree(directory.path)
