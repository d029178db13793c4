"""End of a run by a signal: limits that move, and processes that do not go."""

from __future__ import annotations

import signal
import threading

import pytest
from manual_clock import ManualClock

from hpc_agent.domain.job import CurrentJob, JobState
from hpc_agent.domain.termination_cause import TerminationCause
from hpc_agent.executor.stop_conditions import Deadline, StopConditions, StopReason
from hpc_agent.executor.supervise import ProcessSupervisor
from hpc_agent.executor.task_outcome import ExitContext, ended
from hpc_agent.process.supervised import StopTimeouts


class Controller:
    """Answers what is asked about our job: ``limit`` may be changed by an operator; None: it does not answer."""

    def __init__(self, clock: ManualClock, limit: int | None, began: float = 0.0) -> None:
        self.clock = clock
        self.limit = limit
        self.began = began
        self.asked = 0
        self.state = JobState.RUNNING

    def look(self) -> CurrentJob | None:
        self.asked += 1
        if self.limit is None:
            return None
        return CurrentJob(self.state, ran_for=int(self.clock.seconds - self.began), time_limit=self.limit)

    def is_end_announced(self) -> bool | None:
        return False

    def requeue(self) -> str:
        return ""

    def release(self) -> None:
        raise NotImplementedError


def due_at(deadline: Deadline, clock: ManualClock, until: float) -> float | None:
    """When the deadline is due, looked at each second."""
    while clock.seconds < until:
        if deadline.is_due():
            return clock.seconds
        for thread in threading.enumerate():
            if thread.name == "scheduler query":
                thread.join()  # its question is answered in it, before the next second
        clock.sleep(1)
    return None


def warned(controller: Controller, clock: ManualClock, ahead: float = 30) -> Deadline:
    deadline = Deadline(controller, ahead, clock)
    deadline.warned = True
    return deadline


def test_the_task_is_warned_so_long_before_its_limit() -> None:
    clock = ManualClock()
    clock.advance(3500)
    controller = Controller(clock, 3600)
    assert due_at(warned(controller, clock), clock, 4000) == 3570
    assert controller.asked == 2


def test_a_limit_that_was_extended_after_the_warning_is_noticed() -> None:
    clock = ManualClock()
    clock.advance(3500)
    controller = Controller(clock, 3600)
    deadline = warned(controller, clock)
    assert due_at(deadline, clock, 3550) is None
    controller.limit = 7200
    assert due_at(deadline, clock, 8000) == 7170
    assert deadline.job and deadline.job.time_limit == 7200


def test_a_scheduler_that_falls_silent_after_the_warning_leaves_its_first_answer() -> None:
    clock = ManualClock()
    clock.advance(3500)
    controller = Controller(clock, 3600)
    deadline = warned(controller, clock)
    assert due_at(deadline, clock, 3550) is None
    controller.limit = None
    assert due_at(deadline, clock, 4000) == 3570


def test_a_scheduler_that_never_answers_leaves_no_time() -> None:
    clock = ManualClock()
    deadline = warned(Controller(clock, None), clock)
    assert due_at(deadline, clock, 100) == 0


def test_a_warning_that_came_before_it_could_be_taken_is_made_up_for() -> None:
    """Slurm warns of a limit of a minute or two as soon as the job starts."""
    clock = ManualClock()
    deadline = Deadline(Controller(clock, 120), 30, clock)
    deadline.may_have_missed_warning = True
    assert due_at(deadline, clock, 200) == 90


def test_without_a_warning_a_scheduler_that_does_not_answer_is_not_taken_for_one() -> None:
    clock = ManualClock()
    controller = Controller(clock, None)
    deadline = Deadline(controller, 30, clock)
    deadline.may_have_missed_warning = True
    assert due_at(deadline, clock, 100) is None
    controller.limit = 3600
    deadline.warned = True
    assert due_at(deadline, clock, 4000) == 3570


class Unkillable:
    """A process that hangs in the kernel."""

    pid = 4711

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.got: list[int] = []

    def wait(self, timeout: float) -> int | None:
        self.clock.sleep(timeout)
        return None

    def signal(self, number: int) -> bool:
        self.got.append(number)
        return True

    def signal_chosen(self, number: int, chosen: object) -> list[int]:
        """It catches no signals."""
        return []

    def reap_orphans(self) -> None:
        """Nothing has ended."""


def test_a_process_that_outlives_sigkill_ends_for_the_reason_of_its_signal() -> None:
    clock = ManualClock()
    child, said = Unkillable(clock), list[str]()
    stop = StopConditions(Controller(clock, 3600), 0, 30, clock)
    grace = StopTimeouts(term=5)
    supervisor = ProcessSupervisor(
        child,  # type: ignore[arg-type]
        said.append,
        stop,
        clock,
        grace,
    )
    stop.request.request(StopReason.ABORT)
    code = supervisor.run()
    assert code == -signal.SIGKILL
    assert child.got[0] == signal.SIGTERM and signal.SIGKILL in child.got
    assert "hangs in the kernel" in said[-1]
    assert not supervisor.ended_by_itself
    assert clock.seconds < grace.term + grace.kill + 5
    outcome = ended(code, ExitContext(stop.reason))
    assert (outcome.status, outcome.reason) == ("stopped", "aborted by its user")


class Ended:
    """A process that ends well at once, or once it gets a signal."""

    def __init__(self, *, when_signalled: bool) -> None:
        self.signalled = not when_signalled

    def wait(self, timeout: float | None = None) -> int | None:
        return 0 if self.signalled else None

    def signal(self, number: int) -> bool:
        self.signalled = True
        return True

    def reap_orphans(self) -> None:
        """Nothing else has ended."""

    def has_left_processes(self) -> bool:
        return False

    def sweep(self, pause: object) -> None:
        """It left nothing behind."""


@pytest.mark.parametrize("signalled", [False, True])
def test_a_process_that_ended_before_its_job_was_terminated_came_to_its_end_by_itself(signalled: bool) -> None:
    clock = ManualClock()
    stop = StopConditions(Controller(clock, 3600), 0, 30, clock)
    supervisor = ProcessSupervisor(
        Ended(when_signalled=signalled),  # type: ignore[arg-type]
        lambda _line: None,
        stop,
        clock,
        StopTimeouts(),
    )
    if signalled:
        stop.request.request(StopReason.SIGNAL)
    assert supervisor.run() == 0
    stop.request.request(StopReason.SIGNAL)
    assert supervisor.ended_by_itself is not signalled


class Failed(Ended):
    """A process that has ended with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(when_signalled=False)
        self.code = code

    def wait(self, timeout: float | None = None) -> int | None:
        return self.code


def job_in(state: JobState | None, clock: ManualClock) -> StopConditions:
    """``state``: of the job, as the scheduler has it; None: it does not answer."""
    controller = Controller(clock, None if state is None else 3600)
    controller.state = state or JobState.RUNNING
    return StopConditions(controller, 0, 30, clock)


def supervise_failed(code: int, stop: StopConditions, clock: ManualClock) -> None:
    supervisor = ProcessSupervisor(
        Failed(code),  # type: ignore[arg-type]
        lambda _line: None,
        stop,
        clock,
        StopTimeouts(),
    )
    assert supervisor.run() == code


@pytest.mark.parametrize("code", [1, -signal.SIGTERM])
def test_signal_of_the_job_may_arrive_after_the_end_of_the_process(code: int) -> None:
    """Slurm signals the processes of a job one after the other."""
    clock = ManualClock()
    stop = job_in(JobState.RUNNING, clock)
    clock.at(0.3, lambda: stop.request.request(StopReason.SIGNAL))
    supervise_failed(code, stop, clock)
    assert stop.reason is StopReason.SIGNAL


@pytest.mark.parametrize(
    ("code", "state", "why"),
    [
        (-signal.SIGTERM, JobState.COMPLETING, StopReason.SIGNAL),
        (128 + signal.SIGTERM, JobState.CANCELLED, StopReason.SIGNAL),
        (-signal.SIGTERM, JobState.RUNNING, None),
        (-signal.SIGTERM, None, None),
        (1, JobState.COMPLETING, None),
    ],
)
def test_scheduler_is_asked_about_a_process_that_sigterm_ended(
    code: int, state: JobState | None, why: StopReason | None
) -> None:
    clock = ManualClock()
    stop = job_in(state, clock)
    supervise_failed(code, stop, clock)
    assert stop.reason is why
    assert clock.seconds <= 1


def test_the_process_is_signalled_before_anything_is_said() -> None:
    """What is said may wait for a file server."""
    clock = ManualClock()
    stop = StopConditions(Controller(clock, 3600), 0, 30, clock)
    child = Unkillable(clock)
    order: list[str] = []
    child.got = SignalsInto(order)
    supervisor = ProcessSupervisor(
        child,  # type: ignore[arg-type]
        lambda _line: order.append("said"),
        stop,
        clock,
        StopTimeouts(term=1),
    )
    stop.request.request(StopReason.ABORT)
    supervisor.run()
    assert order.index("SIGTERM") < order.index("said")
    assert order.index("SIGKILL") < len(order) - 1 - order[::-1].index("said")
    first_kill = order.index("SIGKILL")
    assert order[:first_kill].count("said") == 1


class SignalsInto(list[int]):
    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self._order = order

    def append(self, number: int) -> None:
        super().append(number)
        self._order.append(signal.Signals(number).name)


@pytest.mark.parametrize(("by_daemon", "cause"), [(True, TerminationCause.NOT_LAUNCHED), (False, None)])
def test_ranks_that_were_not_launched_are_left_to_the_daemon_if_there_is_one(
    by_daemon: bool, cause: TerminationCause | None
) -> None:
    sentence = "Slurm could not start the ranks on n2: Job credential expired"
    outcome = ended(167, ExitContext(daemon_managed=by_daemon, scheduler_failure=sentence))
    assert (outcome.status, outcome.reason, outcome.exit_code, outcome.cause) == ("failed", sentence, 167, cause)
