"""Staging backends without jobs: in threads of the daemon on the login node, and from the shared cache alone.

A build on the login node that takes minutes holds up its own task only.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import msgspec

from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.job_phase import JobSnapshot
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.task import Task
from hpc_agent.logs import EventLog
from hpc_agent.progress import Progress
from hpc_agent.staging import StagedTask, TaskStager, retry_staging, wrap_unexpected
from hpc_agent.wake_up import WakeUp

log = EventLog("stage")

PREPARING = "Preparing its environment and source"
_FETCHES, _FETCHES_OF_ONE = 6, 4
"""Side by side: they wait for other machines, and some of those never answer."""
_BUILDS, _BUILDS_OF_ONE = 3, 2
"""Side by side on a login node that others use too. One user's builds, however long, leave one to the others."""


_LONG_S = 30.0
"""After this, a task's status message has the step that is being done: an image of 20 GB may take an hour."""


class _Step(msgspec.Struct, frozen=True):
    """``began``: the staging of its task, in seconds of the clock. ``is_trouble``: why it is tried again."""

    line: str
    began: float
    is_trouble: bool


class StagingBackend(Protocol):
    """Implementations: ``LoginStaging`` (in this process) and ``job_staging.StagingJobs``."""

    def get(self, attempt: Attempt, task: Task, queue: Queue, *, wait: bool) -> StagedTask | None:
        """Start staging, or ask how it went: None while it works; ``wait`` waits for it where that is possible.

        Raises:
            SourceError, EnvironmentBuildError: what the task needs cannot be had.
        """

    def update(self, jobs: Mapping[Attempt, JobSnapshot]) -> None:
        """Take what this pass observed of the jobs that stage."""

    def status_message(self, attempt: Attempt) -> str:
        """Status message of a task that waits for it."""

    def drop(self, attempt: Attempt) -> None:
        """Stop staging for an attempt whose task left the queue."""

    def close(self) -> None:
        """Leave what still builds."""


class LoginStaging:
    """Threads of this process. ``done`` is set whenever one of them is: the loop need not wait for its next turn.

    They end with the process, and their installers with them: a daemon that is stopped waits for no build.
    """

    def __init__(self, stager: TaskStager, done: WakeUp, clock: Clock = SYSTEM) -> None:
        self._stager = stager
        self._clock = clock
        self._fetching = Slots(_FETCHES, _FETCHES_OF_ONE)
        self._building = Slots(_BUILDS, _BUILDS_OF_ONE)
        self._running: dict[Attempt, Future[StagedTask]] = {}
        self._steps: dict[Attempt, _Step] = {}
        """The last one of each that is staged."""
        self._done = done

    def get(self, attempt: Attempt, task: Task, queue: Queue, *, wait: bool) -> StagedTask | None:
        future = self._running.get(attempt)
        if future is None:
            future = self._running[attempt] = Future()
            work = partial(self._work, future, attempt, task, self._clock.monotonic())
            threading.Thread(target=work, name="stage", daemon=True).start()
        if not wait and not future.done():
            return None
        try:
            return future.result()
        finally:
            del self._running[attempt]
            self._steps.pop(attempt, None)

    def update(self, jobs: Mapping[Attempt, JobSnapshot]) -> None:
        """No job stages."""

    def status_message(self, attempt: Attempt) -> str:
        step = self._steps.get(attempt)
        if step is None:
            return PREPARING
        if step.is_trouble:
            return step.line
        is_long = self._clock.monotonic() - step.began >= _LONG_S
        return f"{PREPARING}: {step.line}" if is_long else PREPARING

    def _work(self, future: Future[StagedTask], attempt: Attempt, task: Task, began: float) -> None:
        # Installers that this thread starts run at low priority: Linux keeps a niceness for each thread.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)

        def report(line: str, *, is_trouble: bool = False) -> None:
            log.info("staging.environment", task=task.id, step=line)
            self._steps[attempt] = _Step(line, began, is_trouble)

        try:
            # While a remote is away, others build.
            trouble = partial(report, is_trouble=True)
            future.set_result(retry_staging(lambda: self._stage(attempt, task, report), trouble, self._clock))
        except BaseException as error:  # noqa: BLE001 - raised again when the result is asked for
            future.set_exception(error)
        self._done.set()

    def drop(self, attempt: Attempt) -> None:
        """It builds to its end: the next task may want the same."""

    def _stage(self, attempt: Attempt, task: Task, report: Progress) -> StagedTask:
        with self._fetching.slot(task.user):
            log.info("staging.source", task=task.id, attempt=attempt.id)
            source = self._stager.fetch(task, report)
        with self._building.slot(task.user):
            log.info("staging.environment", task=task.id, attempt=attempt.id)
            return self._stager.stage_environment(task, source, report)

    def close(self) -> None:
        """What still builds loses its lease with us, and the next daemon takes it over."""


class CachedStaging:
    """Staging from the shared cache alone: the answer comes at once, and what is missing is an error that names it."""

    def __init__(self, stager: TaskStager) -> None:
        self._stager = stager

    def get(self, attempt: Attempt, task: Task, queue: Queue, *, wait: bool) -> StagedTask:
        return wrap_unexpected(lambda: self._stager.find(task))

    def update(self, jobs: Mapping[Attempt, JobSnapshot]) -> None:
        """No job stages."""

    def status_message(self, attempt: Attempt) -> str:
        return PREPARING

    def drop(self, attempt: Attempt) -> None:
        """Nothing is staged."""

    def close(self) -> None:
        """Nothing runs."""


class Slots:
    """``total`` places, of which one user has at most ``per_user`` at a time; a user without a name is one user."""

    def __init__(self, total: int, per_user: int) -> None:
        self._total = total
        self._per_user = per_user
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def slot(self, user: str) -> Iterator[None]:
        """Enter once there is a place for ``user``."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_free(user))
            self._taken[user] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[user] -= 1
                self._changed.notify_all()

    def _is_free(self, user: str) -> bool:
        return self._taken.total() < self._total and self._taken[user] < self._per_user
