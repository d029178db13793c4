"""Head starts of other clusters that serve the same queue, for tasks that would have to wait here.

The clusters need not know each other, and share no folder. Each holds a task back for as long as its own scheduler
expects the task to wait, ``head_start`` at most: the cluster where it would start first submits it first. If that one
is not there, or its estimate was wrong, the others submit the task too, and the first job that starts claims it.

A question (``sbatch --test-only``) costs the controller about as much as a submission. So one is put in a pass at most,
and tasks that ask for the same share an answer for a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from datetime import datetime, timedelta

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.resources import Resources
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import EventLog
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.inspector import JobInspector

log = EventLog("head_starts")

ANSWER_HOLDS_S = 60.0
LOOK_AGAIN_S = 10.0
SOON = timedelta(seconds=10)
"""A job that would start by then is submitted at once."""


class LeftToOthers(msgspec.Struct, frozen=True):
    """The task is not submitted yet. ``look_again``: seconds until it is worth another look."""

    message: str
    look_again: float


class _Estimate(msgspec.Struct, frozen=True):
    """``start``: None where the scheduler cannot tell."""

    at: float
    start: datetime | None


class HeadStarts:
    """``inspector``: called when there is a first question."""

    def __init__(self, inspector: Callable[[], JobInspector], settings: HpcSettings, clock: Clock) -> None:
        self._create_inspector = inspector
        self._inspector: JobInspector | None = None
        self._settings = settings
        self._clock = clock
        self._seen: dict[Attempt, float] = {}
        """When each waiting attempt was looked at first."""
        self._estimates: dict[tuple[str, Resources], _Estimate] = {}
        self._may_ask = True

    def begin_pass(self, attempts: Container[Attempt]) -> None:
        """``attempts``: those that are there now; the others, which mostly ran elsewhere, are forgotten."""
        self._may_ask = True
        self._seen = {attempt: at for attempt, at in self._seen.items() if attempt in attempts}

    def left_to_others(
        self, attempt: Attempt, queue: str, resources: Resources, directory: RunDirectory
    ) -> LeftToOthers | None:
        """Whether the task is left to other clusters for now; None if it is to be submitted.

        ``queue`` by name; ``directory`` holds the script that would be submitted.
        """
        now = self._clock.monotonic()
        waited = now - self._seen.setdefault(attempt, now)
        left = self._settings.queue(queue).head_start - waited
        if left <= 0:
            return None
        estimate = self._estimates.get((queue, resources))
        if estimate is None or now - estimate.at >= ANSWER_HOLDS_S:
            if not self._may_ask:
                return LeftToOthers("asking the scheduler when it would start", 0.0)
            self._may_ask = False
            estimate = self._estimates[queue, resources] = _Estimate(now, self._ask(attempt, directory))
        wait = timedelta(0) if estimate.start is None else estimate.start - self._clock.now()
        left = min(left, wait.total_seconds())
        if estimate.start is None or wait <= SOON or left <= 0:
            return None
        message = (
            f"left to other clusters of its queue for {left:.0f} s: here it would start at "
            f"{estimate.start:%Y-%m-%d %H:%M} UTC"
        )
        return LeftToOthers(message, min(left, LOOK_AGAIN_S))

    def _ask(self, attempt: Attempt, directory: RunDirectory) -> datetime | None:
        if self._inspector is None:
            self._inspector = self._create_inspector()
        try:
            answer = self._inspector.test(directory.script, directory.path)
        except (HpcAgentError, OSError) as error:
            log.info("start.not_estimated", task=attempt.task, error=error)
            return None
        log.info("start.estimated", task=attempt.task, start=answer.start, message=answer.message)
        return answer.start if answer.accepted else None
