"""Why the scheduler tells this job to end, and when its time is up: asked beside whatever goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hpc_agent.clock import Clock
from hpc_agent.domain.job import CurrentJob
from hpc_agent.domain.termination import TerminationCause, termination_cause
from hpc_agent.logs import EventLog
from hpc_agent.schedulers.base import CurrentJobClient

log = EventLog("interruption")

CAUSE_S = 10.0
"""How long the scheduler may take to say why it tells us to end."""


class _Question:
    """Asked once, in a thread: slurmctld may take its time, and the task's process must not wait for it."""

    def __init__(self, look: Callable[[], CurrentJob | None]) -> None:
        self.answer: CurrentJob | None = None
        self._look = look
        # Not the thread's own life: from Python 3.13 on it counts as alive for a moment after its last line.
        self._answered = threading.Event()
        threading.Thread(target=self._ask, name="interruption", daemon=True).start()

    def _ask(self) -> None:
        try:
            self.answer = self._look()
        finally:
            self._answered.set()

    def wait(self, seconds: float) -> CurrentJob | None:
        self._answered.wait(seconds)
        return self.answer

    @property
    def done(self) -> bool:
        return self._answered.is_set()


class Interruption:
    """SIGTERM: who sent it, and why."""

    def __init__(self, own: CurrentJobClient, restarts: int) -> None:
        self._own = own
        self._restarts = restarts
        self._question: _Question | None = None

    def ask(self) -> None:
        if self._question is None:
            self._question = _Question(self._own.look)

    def cause(self, wait: float) -> TerminationCause:
        self.ask()
        assert self._question is not None
        job = self._question.wait(wait)
        cause = termination_cause(job, self._restarts)
        log.info("told to end", cause=cause.value, says=job)
        return cause

    @property
    def job(self) -> CurrentJob | None:
        return self._question.answer if self._question else None


_SURE_S = 10.0
"""So long before the task is told, the scheduler is asked once more: a limit may have been extended since."""


class Deadline:
    """The time limit. Slurm warns up to a minute early; the task is told ``ahead`` seconds before the limit.

    ``warned`` is set by a signal handler, ``is_due`` polled.
    """

    def __init__(self, own: CurrentJobClient, ahead: float, clock: Clock) -> None:
        self._own = own
        self._ahead = ahead
        self._clock = clock
        self.warned = False
        self.may_have_missed = False
        """Whether the warning may have come before we could take it: then the scheduler is asked without one."""
        self._asked_at = 0.0
        self._question: _Question | None = None
        self._answered_at = 0.0
        self.job: CurrentJob | None = None
        """As the scheduler last said."""

    def is_due(self) -> bool:
        if not (self.warned or self.may_have_missed):
            return False
        now = self._clock.monotonic()
        if self._question is None:
            self._ask(now)
        if not self._take_answer():
            return self.job is not None and self._is_time(now)
        if self.job is None and not self.warned:
            # The warning is yet to come, most likely: then it is asked again.
            self.may_have_missed, self._question = False, None
            return False
        if self.job is None:
            # Nobody says how long there is; it cannot be much.
            return True
        if self.job.left is None:
            return False
        if now - self._asked_at > _SURE_S and now >= self._told_at(self.job.left) - _SURE_S:
            self._ask(now)
        return self._is_time(now)

    def _ask(self, now: float) -> None:
        self._asked_at = now
        self._question = _Question(self._own.look)

    def _take_answer(self) -> bool:
        """Whether the last question is answered, or nobody answers it."""
        assert self._question is not None
        if not self._question.done:
            return False
        if self._question.answer is not None and self._question.answer is not self.job:
            self.job = self._question.answer
            self._answered_at = self._asked_at
        return True

    def _is_time(self, now: float) -> bool:
        return self.job is not None and self.job.left is not None and now >= self._told_at(self.job.left)

    def _told_at(self, left: float) -> float:
        return self._answered_at + left - self.ahead

    @property
    def ahead(self) -> float:
        """A quarter of a short limit: a job of a minute is not told to end before it began."""
        limit = self.job.time_limit if self.job else None
        return min(self._ahead, limit / 4) if limit else self._ahead

    @property
    def limit(self) -> float | None:
        return self.job.time_limit if self.job else None

    def ran_for(self) -> float | None:
        """Seconds that the job has run by now."""
        if self.job is None:
            return None
        return self.job.ran_for + self._clock.monotonic() - self._answered_at
