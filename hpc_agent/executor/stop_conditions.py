"""Stop conditions of a run: requests of its threads, signals, the scheduler's reason, the time limit."""

from __future__ import annotations

import concurrent.futures
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from enum import Enum
from types import FrameType
from typing import TypeVar

from hpc_agent.cancellation import POLL_S, Cancelled, cancelled_when, in_background
from hpc_agent.clock import Clock
from hpc_agent.domain.job import CurrentJob
from hpc_agent.domain.termination_cause import TerminationCause, termination_cause
from hpc_agent.logs import EventLog
from hpc_agent.schedulers.base import CurrentJobClient

log = EventLog("stop")

T = TypeVar("T")

LIMIT_WARNING = signal.SIGUSR1
"""What ``--signal=B:USR1@…`` sends ahead of the time limit."""
_ASK_AGAIN_S = 10.0
"""The scheduler is asked again this long before the task is signalled: the limit may have been extended since."""
CAUSE_S = 10.0
"""How long the scheduler may take to answer why the job got SIGTERM."""
_QUERY = "scheduler query"
"""Name of the threads that ask the scheduler."""


class StopReason(Enum):
    """Reason why a running task has to end; the text is for users."""

    ABORT = "aborted by its user"
    TAKEN_BACK = "its status was changed on the server"
    SIGNAL = "the job received SIGTERM"
    """SIGTERM: cancelled, preempted or out of time; the scheduler knows which."""
    INTERRUPT = "interrupted at the terminal"
    TIME_LIMIT = "its time limit is near"
    FENCED = "the task is run by another start of its job, or was taken back"
    """This process must report nothing: another one reports for the task now."""


class StopRequest:
    """Request to end the run, made by threads and signal handlers, read by the main thread. The first reason holds.

    No locks: a signal handler may interrupt their holder. Each assignment is atomic, and two at once are equally right.
    """

    def __init__(self) -> None:
        self._reason: StopReason | None = None
        self._held_until = 0.0
        self.sigterm_received = False
        """The scheduler kills soon (Slurm: after KillWait), whatever the reason to stop was."""

    @property
    def reason(self) -> StopReason | None:
        return self._reason

    def request(self, reason: StopReason, *, hold_until: float = 0.0) -> None:
        """``hold_until``: monotonic time up to which the process may go on by itself."""
        if self._reason is None:
            self._held_until = hold_until
            self._reason = reason
        elif reason in (StopReason.SIGNAL, StopReason.FENCED):
            self.release_hold()

    def is_made(self) -> bool:
        return self._reason is not None

    def release_hold(self) -> None:
        """The process needs no more time by itself, or may not have it."""
        self._held_until = 0.0

    def is_held(self, now: float) -> bool:
        return now < self._held_until

    def run_cancellable(self, work: Callable[[], T], name: str, clean_up_s: float = 5.0) -> T:
        """Do ``work`` in a thread, and return or raise what it does; a stop request cancels it.

        This thread only waits: work that hangs on a file system or in a library holds up no end of the run. Cancelled,
        it has ``clean_up_s`` seconds; then it is left behind, as a SIGKILL would leave it.

        Raises:
            Cancelled: a stop was requested before the work was done.
        """

        def cancellable() -> T:
            with cancelled_when(self.is_made):
                return work()

        if self.is_made():
            raise Cancelled
        future = in_background(cancellable, name)
        while not _is_done(future, POLL_S):
            if self.is_made() and not _is_done(future, clean_up_s):
                log.warning("task.work_left_behind", work=name)
                raise Cancelled
        if self.is_made() and future.exception() is not None:
            # A program of the work may have failed by the same signal.
            raise Cancelled from future.exception()
        return future.result()

    def sleep(self, seconds: float, clock: Clock) -> None:
        """
        Raises:
            Cancelled: a stop was requested meanwhile.
        """
        end = clock.monotonic() + seconds
        while not self.is_made() and (left := end - clock.monotonic()) > 0:
            clock.sleep(min(left, POLL_S))
        if self.is_made():
            raise Cancelled


def _is_done(future: Future[T], seconds: float) -> bool:
    return bool(concurrent.futures.wait([future], seconds).done)


class TerminationQuery:
    """The scheduler's reason for a SIGTERM, asked for in a thread: it may take its time to answer."""

    def __init__(self, current_job: CurrentJobClient, restart_count: int) -> None:
        self._current_job = current_job
        self._restart_count = restart_count
        self._answer: Future[CurrentJob | None] | None = None

    def start(self) -> None:
        """Ask, once."""
        if self._answer is None:
            self._answer = in_background(self._current_job.look, _QUERY)

    def is_announced(self, wait: float) -> bool | None:
        """See ``CurrentJobClient.is_end_announced``; not known either after ``wait`` seconds: the job's output may lie
        on a file server that stalls, for which no end of a run waits."""
        answer = in_background(self._current_job.is_end_announced, "look at the job's output")
        concurrent.futures.wait([answer], wait)
        return _answer_of(answer)

    def cause(self, wait: float) -> TerminationCause:
        """``wait``: seconds that the scheduler gets to answer."""
        self.start()
        assert self._answer is not None
        concurrent.futures.wait([self._answer], wait)
        cause = termination_cause(self.job, self._restart_count)
        log.info("job.termination_cause", cause=cause.value, job_state=self.job)
        return cause

    @property
    def job(self) -> CurrentJob | None:
        """The answer; None while there is none."""
        return _answer_of(self._answer)


def _answer_of(future: Future[T | None] | None) -> T | None:
    """The answer; None while there is none, and for an error, as while the scheduler is away."""
    if future is None or not future.done() or future.exception() is not None:
        return None
    return future.result()


class Deadline:
    """The job's time limit. Slurm warns up to a minute early; the task is signalled ``ahead`` seconds before the limit.

    ``warned`` is set by a signal handler, ``is_due`` polled.
    """

    def __init__(self, current_job: CurrentJobClient, ahead: float, clock: Clock) -> None:
        self._current_job = current_job
        self._ahead = ahead
        self._clock = clock
        self.warned = False
        self.may_have_missed_warning = False
        """Whether the warning may have come before its handler was set: then the scheduler is asked without one."""
        self._asked_at = 0.0
        self._answer: Future[CurrentJob | None] | None = None
        self._answered_at = 0.0
        self.job: CurrentJob | None = None
        """The scheduler's last answer."""

    def is_due(self) -> bool:
        """Whether the task is to be signalled now."""
        if not (self.warned or self.may_have_missed_warning):
            return False
        now = self._clock.monotonic()
        if self._answer is None:
            self._ask(now)
        if not self._take_answer():
            return self.job is not None and self._is_time(now)
        if self.job is None and not self.warned:
            # The warning is yet to come, most likely: then it is asked again.
            self.may_have_missed_warning, self._answer = False, None
            return False
        if self.job is None:
            # Warned, and without an answer: there cannot be much time.
            return True
        if self.job.left is None:
            return False
        if now - self._asked_at > _ASK_AGAIN_S and now >= self._tell_at(self.job.left) - _ASK_AGAIN_S:
            self._ask(now)
        return self._is_time(now)

    def _ask(self, now: float) -> None:
        self._asked_at = now
        self._answer = in_background(self._current_job.look, _QUERY)

    def _take_answer(self) -> bool:
        """Whether the last question was answered, be it without a job."""
        assert self._answer is not None
        if not self._answer.done():
            return False
        job = _answer_of(self._answer)
        if job is not None and job is not self.job:
            self.job = job
            self._answered_at = self._asked_at
        return True

    def _is_time(self, now: float) -> bool:
        return self.job is not None and self.job.left is not None and now >= self._tell_at(self.job.left)

    def _tell_at(self, left: float) -> float:
        return self._answered_at + left - self.ahead

    @property
    def ahead(self) -> float:
        """Seconds; a quarter of a short limit: a job of a minute is not ended before it began."""
        limit = self.job.time_limit if self.job else None
        return min(self._ahead, limit / 4) if limit else self._ahead

    def ran_for(self) -> float | None:
        """Seconds that the job has run by now."""
        if self.job is None:
            return None
        return self.job.ran_for + self._clock.monotonic() - self._answered_at


class StopConditions:
    """All that can end a run early, and what is known about it."""

    def __init__(self, current_job: CurrentJobClient, restart_count: int, ahead: float, clock: Clock) -> None:
        """``ahead``: seconds before the job's time limit at which the task is signalled."""
        self.request = StopRequest()
        self.termination = TerminationQuery(current_job, restart_count)
        self.deadline = Deadline(current_job, ahead, clock)

    @property
    def reason(self) -> StopReason | None:
        return self.request.reason

    @property
    def time_limit(self) -> float | None:
        """Seconds that the job may run, as far as the scheduler answered."""
        job = self.deadline.job or self.termination.job
        return job.time_limit if job else None

    @property
    def ran_for(self) -> float | None:
        """Seconds that the job has run, as far as the scheduler answered."""
        job = self.termination.job
        return self.deadline.ran_for() if self.deadline.job else job.ran_for if job else None


@contextmanager
def handled_signals(stop: StopRequest, deadline: Deadline) -> Iterator[None]:
    """Inside, SIGTERM and Ctrl-C end the task and not this program. The handler sets flags and does nothing else."""

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if number == LIMIT_WARNING:
            deadline.warned = True
        elif number == signal.SIGINT:
            stop.request(StopReason.INTERRUPT)
        else:
            stop.sigterm_received = True
            stop.request(StopReason.SIGNAL)

    numbers = (signal.SIGTERM, signal.SIGINT, LIMIT_WARNING)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    # The job's script ignores the warning while it has no agent yet. What the task starts does not inherit that.
    deadline.may_have_missed_warning = before[LIMIT_WARNING] == signal.SIG_IGN
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
