"""Hints that a waiting job would start sooner on another partition, asked of ``sbatch --test-only``.

Each question costs the controller about as much as a submission. So only queues are looked at that let tasks choose
among named partitions; a task is asked about once in ten minutes at most, and one question is put in a pass at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.job import LiveJob
from hpc_agent.domain.wait_reason import SOONER
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import EventLog
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.inspector import JobInspector

log = EventLog("partition_hints")

EVERY_S = 600.0
"""Between two questions about the same task's partitions."""
WORTH_IT = timedelta(minutes=10)
"""A hint saves at least that much waiting."""
_AT_ONCE = timedelta(minutes=1)
"""A start that is so near, or was when it was asked for, is shown without its time."""


class _AskedPartitions(msgspec.Struct):
    """What is known of one attempt's other partitions. ``left``: those not asked about yet in this round."""

    at: float
    left: list[str]
    best: tuple[datetime, str] | None = None
    previous: tuple[datetime, str] | None = None
    """Of the round before, which holds until this one is over: a message does not come and go."""

    @property
    def known(self) -> tuple[datetime, str] | None:
        return self.previous if self.left and self.previous is not None else self.best


class PartitionHints:
    """``inspector``: called when there is a first question."""

    def __init__(self, inspector: Callable[[], JobInspector], settings: HpcSettings, clock: Clock) -> None:
        self._create_inspector = inspector
        self._inspector: JobInspector | None = None
        self._settings = settings
        self._clock = clock
        self._asked: dict[Attempt, _AskedPartitions] = {}
        self._may_ask = True

    def begin_pass(self) -> None:
        self._may_ask = True

    def forget(self, attempt: Attempt) -> None:
        self._asked.pop(attempt, None)

    def hint(self, attempt: Attempt, queue: str, job: LiveJob, directory: RunDirectory) -> str:
        """A clause for the task's status message; empty if no other partition is known to be sooner.

        ``queue`` by name; ``directory`` holds the script that was submitted.
        """
        now = self._clock.now()
        others = self._partitions(queue)
        if not others or job.expected_start is None or job.expected_start - now < WORTH_IT:
            return ""
        asked = self._asked.get(attempt)
        if asked is None or self._clock.monotonic() - asked.at >= EVERY_S:
            previous = asked.known if asked else None
            asked = _AskedPartitions(self._clock.monotonic(), list(others), previous=previous)
            self._asked[attempt] = asked
        if asked.left and self._may_ask:
            self._ask(attempt, asked, directory)
        if asked.known is None or asked.known[0] > job.expected_start - WORTH_IT:
            return ""
        start, partition = asked.known
        when = f"{start:%Y-%m-%d %H:%M} UTC" if start - now > _AT_ONCE else "at once"
        advice = "set the user property partition and enqueue it again"
        return f"{SOONER}{partition} ({when}): {advice}"

    def _partitions(self, queue: str) -> Sequence[str]:
        rule = (self._settings.queue(queue).overrides or {}).get("partition")
        choices = (rule.choices or ()) if rule is not None else ()
        return choices if len(choices) > 1 else ()

    def _ask(self, attempt: Attempt, asked: _AskedPartitions, directory: RunDirectory) -> None:
        self._may_ask = False
        if self._inspector is None:
            self._inspector = self._create_inspector()
        partition = asked.left.pop(0)
        try:
            answer = self._inspector.test(directory.script, directory.path, partition=partition)
        except (HpcAgentError, OSError) as error:
            log.info("partition.not_tested", task=attempt.task, partition=partition, error=error)
            return
        if answer.accepted and answer.start is not None:
            found = (max(answer.start, self._clock.now()), partition)
            asked.best = found if asked.best is None else min(asked.best, found)
