"""Pruner of old run directories of tasks that are done, and of folders of sessions."""

from __future__ import annotations

import shutil
from datetime import timedelta

from hpc_agent.clock import Clock
from hpc_agent.file_records import CorruptFileError
from hpc_agent.logs import EventLog
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.runs.session_folders import SessionFolders

log = EventLog("prune")

_EVERY_S = 6 * 3600.0


class Pruner:
    def __init__(self, runs: RunsFolder, sessions: SessionFolders, keep_days: int, clock: Clock) -> None:
        """``keep_days``: 0 keeps them all."""
        self._runs = runs
        self._sessions = sessions
        self._keep = timedelta(days=keep_days)
        self._clock = clock
        self._next = clock.monotonic()

    def turn(self) -> None:
        """Remove what is old enough, a few times a day."""
        if not self._keep or self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + _EVERY_S
        removed = 0
        for task in self._runs.tasks():
            for directory in self._runs.attempts(task):
                if self._is_old(directory):
                    shutil.rmtree(directory.path, ignore_errors=True)
                    removed += 1
            self._runs.drop_if_empty(task)
        if removed:
            log.info("runs.pruned", count=removed)
        # After the runs: the folder of a session goes with the last one of its task.
        if of_sessions := self._sessions.remove_old(self._clock.now() - self._keep):
            log.info("sessions.pruned", count=of_sessions)

    def _is_old(self, directory: RunDirectory) -> bool:
        """Whether a daemon marked it as done long ago; anything else may still be needed."""
        try:
            settled = directory.settled()
        except (CorruptFileError, OSError):
            return False
        return settled is not None and settled.at < self._clock.now() - self._keep
