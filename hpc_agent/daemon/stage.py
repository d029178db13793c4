"""Staging on the login node, beside the loop: a build that takes minutes holds up its own task only."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.task import Task
from hpc_agent.logs import Events
from hpc_agent.staging import Staged, Stager

log = Events("stage")

_AT_ONCE = 2
"""Builds side by side on a login node that others use too."""


class StagePool:
    """``get`` again and again: None while it works, the result or the error once."""

    def __init__(self, settings: AllSettings, clock: Clock) -> None:
        self._stager = Stager(settings, clock)
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="stage")
        self._running: dict[Attempt, Future[Staged]] = {}
        self.progressed = threading.Event()
        """Set whenever one is done: the loop need not wait for its next turn."""

    def get(self, attempt: Attempt, task: Task, *, wait: bool) -> Staged | None:
        """Start staging, or ask how it went.

        Raises:
            SourceError, EnvironmentBuildError: what the task needs cannot be had.
        """
        future = self._running.get(attempt)
        if future is None:
            future = self._running[attempt] = self._pool.submit(self._stage, attempt, task)
        if not wait and not future.done():
            return None
        try:
            return future.result()
        finally:
            del self._running[attempt]

    def _stage(self, attempt: Attempt, task: Task) -> Staged:
        log.info("staging", task=task.id, attempt=attempt.id)
        try:
            return self._stager.stage(task, lambda line: log.info("staging", task=task.id, step=line))
        finally:
            self.progressed.set()

    def close(self) -> None:
        """Leave what still builds: its lease ends with us and the next daemon takes it over."""
        self._pool.shutdown(wait=False, cancel_futures=True)
