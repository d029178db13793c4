"""Environment of a staged task, made ready on this node while the server is still asked whether the task is ours.

It changes this node's cache alone, and is worth having whatever the answer is: a task that is lost here is run by
another job of the same sweep, most likely.
"""

from __future__ import annotations

import concurrent.futures

from hpc_agent.cancellation import POLL_S, check, in_background
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.envs.env_store import UsableEnv
from hpc_agent.file_records import read_record
from hpc_agent.logs import EventLog
from hpc_agent.progress import Progress
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.staging import StagedTask, TaskStager

log = EventLog("executor")


class EnvPrefetch:
    """``begin`` when the program starts; ``result`` when the environment is needed."""

    def __init__(self, settings: AllSettings, directory: RunDirectory, clock: Clock) -> None:
        self._settings = settings
        self._directory = directory
        self._clock = clock
        self._lines: list[str] = []

    def begin(self) -> None:
        self._future = in_background(self._open, "environment")

    def result(self, progress: Progress) -> UsableEnv | None:
        """Wait for it, and repeat its lines to ``progress``; None where it is to be opened in the usual way, which
        gives the error if there was one.

        Raises:
            Cancelled: see ``hpc_agent.cancellation``.
        """
        while not concurrent.futures.wait([self._future], POLL_S).done:
            check()
        error = self._future.exception()
        if error is not None:
            log.debug("environment.not_prefetched", error=error)
            return None
        for line in self._lines:
            progress(line)
        return self._future.result()

    def _open(self) -> UsableEnv | None:
        staged = read_record(self._directory.stage, StagedTask)
        if staged is None:
            return None
        task = self._directory.attempt.task
        return TaskStager(self._settings, self._clock, share=False).open(task, staged, self._lines.append)
