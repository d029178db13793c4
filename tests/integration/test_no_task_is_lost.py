"""Whatever happens in whatever order: no task is lost, none runs twice, each reaches one final status.

The same courses of events every time; ``scripts/explore --minutes N`` looks at new ones.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from exploring import assert_enough, limits, seeded
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from simulated_arrays import CompanionSite
from simulated_cluster import OTHER_JOBS
from simulated_site import SimulatedSite

from hpc_agent.domain.job import JobState
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.termination_cause import TerminationCause

ENDS = {
    JobState.CANCELLED: TerminationCause.CANCELLED,
    JobState.TIMEOUT: TerminationCause.TIME_LIMIT,
    JobState.NODE_FAIL: TerminationCause.NODE_FAILED,
    JobState.PREEMPTED: TerminationCause.PREEMPTED,
    JobState.OUT_OF_MEMORY: TerminationCause.UNKNOWN,
}


SEVERAL_PROCESSES = "several processes of the task began"
SEVERAL_JOBS = "it had several jobs"
REQUEUED = "a job was requeued"
CANCELLED = "a job was cancelled"
ANOTHER_DAEMON = "another daemon took over"
COMPLETED_BY_ITSELF = "its script completed it"
TOGETHER = "its job was an element of an array"
HAPPENS = (
    *(SEVERAL_PROCESSES, SEVERAL_JOBS, REQUEUED, CANCELLED, ANOTHER_DAEMON, COMPLETED_BY_ITSELF, "kill_in", "lose_in"),
    *("completed", "failed", "stopped", "created"),
)
"""Without these the assertions below say little: each must be met in some courses of events."""

KILLED, RUN_AND_REQUEUED, TAKEN_OFF = 5, 6, 7
HELD = "JobHeldUser"
NEVER = ("DependencyNeverSatisfied", "launch failed requeued held")


_Fault = Literal["kill_in", "lose_in"]


class NoTaskIsLost(RuleBasedStateMachine):
    new_site: Callable[[Path], SimulatedSite] = SimulatedSite

    def __init__(self, asserted: Counter[str]) -> None:
        """``asserted``: what happened in how many courses of events, so that something was asserted of it."""
        super().__init__()
        self._asserted = asserted
        self._happened: set[str] = set()
        self._processes = 0
        self._seen_processes = 0
        self.folder = Path(tempfile.mkdtemp(prefix="simulated-site-", dir=_memory()))
        self.site = type(self).new_site(self.folder)
        self.site.enqueue()
        self.interferences = 0
        self.gave_up = False
        """Its user took it off the queue, or aborted it."""

    @initialize(
        steps=st.sampled_from([3, 3, 3, -2, -1, 0, 1, 2, 4, KILLED, RUN_AND_REQUEUED, TAKEN_OFF, TAKEN_OFF]),
        interferences=st.integers(0, 4),
    )
    def it_has_come_so_far(self, steps: int, interferences: int) -> None:
        """-2: it waits in its queue; -1: its job waits; 0: the job runs; from 1 on: so many steps of its executor.
        After three of them the user's process runs; ``KILLED``: and its agent was killed then;
        ``RUN_AND_REQUEUED``: and Slurm put the job back. ``TAKEN_OFF``: its job waits, and its user has just taken it
        off the queue, so that the job is the daemon's to cancel.

        ``interferences``: how often a person, or another agent, takes it or enqueues it again. Without that limit next
        to no course of events would come to an end of its own.
        """
        self.interferences = interferences
        if steps > -2:
            self.site.run_pass()
        if steps == TAKEN_OFF:
            self.site.server.dequeue()
            self.gave_up = True
            return
        if steps > -1:
            self.site.start_job(*self.site.cluster.startable_jobs())
        for _ in range(3 if steps in (KILLED, RUN_AND_REQUEUED) else steps):
            self.site.live_executors()[0].step()
        if steps == KILLED:
            self.the_agent_is_killed()
        if steps == RUN_AND_REQUEUED:
            self.site.requeue(self.site.cluster.running_jobs()[0], kill=True)

    @rule(steps=st.integers(1, 3))
    def all_goes_well_for_a_while(self, steps: int) -> None:
        """What takes many rules one by one: a job of a task that waits is submitted, started, and goes on."""
        self.accounting_catches_up()
        for _ in range(2):
            self.site.advance(30)
            self.site.run_pass()
        for job in self.site.cluster.startable_jobs():
            self.site.start_job(job)
        for executor in self.site.live_executors():
            for _ in range(steps):
                if not (executor.ended or executor.has_process):
                    executor.step()

    # ------------------------------------------------ daemon

    @rule(passes=st.integers(1, 3), seconds=st.sampled_from([1, 10, 70, 700]))
    def the_daemon_looks(self, passes: int, seconds: int) -> None:
        for _ in range(passes):
            self.site.advance(seconds)
            self.site.run_pass()

    @rule(calls=st.integers(0, 12), after=st.booleans(), seconds=st.sampled_from([1, 70]))
    def the_daemon_dies_in_a_pass(self, calls: int, after: bool, seconds: int) -> None:
        self.site.advance(seconds)
        self._with_fault("kill_in", calls, after, self.site.run_pass)

    @rule(calls=st.integers(0, 12), after=st.booleans())
    def an_answer_to_the_daemon_gets_lost(self, calls: int, after: bool) -> None:
        self._with_fault("lose_in", calls, after, self.site.run_pass)

    @rule()
    def another_daemon_takes_over(self) -> None:
        self.site.restart_daemon()
        self._happened.add(ANOTHER_DAEMON)

    # ------------------------------------------------ Slurm

    @precondition(lambda self: self.site.cluster.startable_jobs())
    @rule(data=st.data())
    def a_job_starts(self, data: st.DataObject) -> None:
        self.site.start_job(data.draw(st.sampled_from(self.site.cluster.startable_jobs()), "job"))

    @precondition(lambda self: self.site.cluster.startable_jobs())
    @rule(data=st.data(), why=st.sampled_from([HELD, *NEVER]))
    def a_job_does_not_start(self, data: st.DataObject, why: str) -> None:
        """Until it is released, or never."""
        data.draw(st.sampled_from(self.site.cluster.startable_jobs()), "job").held = why

    @precondition(lambda self: self.site.cluster.running_jobs())
    @rule(data=st.data(), state=st.sampled_from(list(ENDS)), kill=st.booleans(), unreachable=st.booleans())
    def slurm_ends_a_job(self, data: st.DataObject, state: JobState, kill: bool, unreachable: bool) -> None:
        job = data.draw(st.sampled_from(self.site.cluster.running_jobs()), "job")
        self.site.end_job(job, state, ENDS[state], kill=kill, unreachable=unreachable and state is JobState.NODE_FAIL)

    @precondition(lambda self: self.site.cluster.running_jobs())
    @rule(data=st.data(), kill=st.booleans(), unreachable=st.booleans())
    def slurm_requeues_a_job(self, data: st.DataObject, kill: bool, unreachable: bool) -> None:
        job = data.draw(st.sampled_from(self.site.cluster.running_jobs()), "job")
        self.site.requeue(job, kill=kill, unreachable=unreachable)

    @precondition(lambda self: self.site.cluster.pending_jobs())
    @rule(data=st.data())
    def a_waiting_job_is_cancelled_by_hand(self, data: st.DataObject) -> None:
        self.site.cluster.end(data.draw(st.sampled_from(self.site.cluster.pending_jobs()), "job"), JobState.CANCELLED)

    @rule()
    def accounting_catches_up(self) -> None:
        self.site.cluster.update_accounting()

    @rule(answers=st.booleans())
    def accounting_fails_or_answers_again(self, answers: bool) -> None:
        self.site.cluster.accounting_answers = answers

    # ------------------------------------------------ jobs

    @precondition(lambda self: self.site.live_executors())
    @rule(data=st.data(), steps=st.integers(1, 4))
    def a_job_goes_on(self, data: st.DataObject, steps: int) -> None:
        executor = data.draw(st.sampled_from(self.site.live_executors()), "executor")
        for _ in range(steps):
            if not executor.ended:
                executor.step()

    @precondition(lambda self: self.site.live_executors())
    @rule(data=st.data(), calls=st.integers(0, 4), after=st.booleans(), lost=st.booleans())
    def a_job_dies_or_misses_an_answer(self, data: st.DataObject, calls: int, after: bool, lost: bool) -> None:
        executor = data.draw(st.sampled_from(self.site.live_executors()), "executor")
        self._with_fault("lose_in" if lost else "kill_in", calls, after, executor.step)

    @precondition(lambda self: self._runs())
    @rule()
    def the_agent_is_killed(self) -> None:
        for executor in self.site.live_executors():
            executor.exit(137)

    @precondition(lambda self: self._runs())
    @rule(state=st.sampled_from([JobState.TIMEOUT, JobState.OUT_OF_MEMORY]), kill=st.booleans())
    def its_time_or_memory_is_used_up(self, state: JobState, kill: bool) -> None:
        for job in self.site.cluster.running_jobs():
            self.site.end_job(job, state, ENDS[state], kill=kill)

    @precondition(lambda self: self.site.server.status is TaskStatus.IN_PROGRESS and self._runs())
    @rule()
    def a_script_completes_its_own_task(self) -> None:
        """And goes on."""
        self.site.server.complete()
        self._happened.add(COMPLETED_BY_ITSELF)

    # ------------------------------------------------ the server, and other agents

    @rule()
    def an_answer_lacks_the_task(self) -> None:
        self.site.faults.omit_rows = True

    @precondition(lambda self: self.interferences and self.site.server.is_in_queue)
    @rule()
    def another_agent_takes_it(self) -> None:
        self.interferences -= 1
        self.site.start_other_agent()
        self._processes += 1

    @precondition(lambda self: self.site.other_agent_runs)
    @rule(ends=st.booleans())
    def another_agent_goes_on(self, ends: bool) -> None:
        self.site.step_other_agent(ends=ends)

    # ------------------------------------------------ its user

    @precondition(lambda self: self.interferences and self.site.server.status is not TaskStatus.CREATED)
    @rule()
    def its_user_resets_it(self) -> None:
        self.interferences -= 1
        self.site.reset_task()
        self.gave_up = True

    @precondition(lambda self: self.interferences and self.site.server.is_in_queue)
    @rule()
    def its_user_takes_it_off_the_queue(self) -> None:
        self.interferences -= 1
        self.site.server.dequeue()
        self.gave_up = True

    @precondition(lambda self: self.interferences and self._is_active())
    @rule()
    def its_user_aborts_it(self) -> None:
        self.interferences -= 1
        self.site.abort_task()
        self.gave_up = True

    @precondition(lambda self: self.interferences and self._may_be_enqueued())
    @rule()
    def its_user_enqueues_it_again(self) -> None:
        self.interferences -= 1
        self.site.enqueue()
        self.gave_up = False

    # ------------------------------------------------ what must hold

    @invariant()
    def no_two_processes_at_once(self) -> None:
        self._processes += max(self.site.processes_started - self._seen_processes, 0)
        self._seen_processes = self.site.processes_started
        assert self.site.most_processes <= 1

    @invariant()
    def it_finishes_once(self) -> None:
        assert self.site.finished <= 1
        assert self.site.server.finals <= 1
        self._happened.add(self.site.server.status.value)

    @invariant()
    def a_script_that_completed_its_own_task_is_not_cancelled_while(self) -> None:
        assert TaskStatus.COMPLETED not in self.site.cluster.cancelled_while

    @invariant()
    def no_job_of_others_is_touched(self) -> None:
        assert not {job.id for job in OTHER_JOBS} & set(self.site.cluster.cancelled)

    def teardown(self) -> None:
        """Faults end, time passes: then the task must be where it belongs."""
        try:
            self._settle()
            server = self.site.server
            assert self._is_at_rest(), f"{server.seen}, added to its queue: {server.added}"
            assert server.finals == (1 if server.status.is_final else 0)
            assert server.status.is_final or self.gave_up
            assert not self.site.cluster.running_jobs() and not self.site.cluster.pending_jobs()
            self.no_two_processes_at_once()
            self.it_finishes_once()
            self.no_job_of_others_is_touched()
            self._asserted.update(self._what_happened())
        finally:
            self.site.close()
            shutil.rmtree(self.folder)

    def _what_happened(self) -> set[str]:
        site = self.site
        reported = {
            SEVERAL_PROCESSES: self._processes > 1,
            SEVERAL_JOBS: len(site.cluster.jobs) > 1,
            REQUEUED: any(job.restarts for job in site.cluster.jobs.values()),
            CANCELLED: bool(site.cluster.cancelled),
        }
        return self._happened | {what for what, so in reported.items() if so}

    def _runs(self) -> bool:
        return any(executor.has_process for executor in self.site.executors)

    def _settle(self) -> None:
        self.site.cluster.accounting_answers = True
        for _ in range(60):
            self.accounting_catches_up()
            self.site.advance(30)
            self.site.run_pass()
            self.site.step_other_agent(ends=True)
            for job in self.site.cluster.pending_jobs():
                if job.held == HELD:
                    job.held = ""
                if not job.held:
                    self.site.start_job(job)
            for executor in self.site.live_executors():
                executor.step()
            if self._is_at_rest() and not (
                self.site.live_executors() or self.site.cluster.running_jobs() or self.site.cluster.pending_jobs()
            ):
                return

    def _is_active(self) -> bool:
        return self.site.server.status in (TaskStatus.QUEUED, TaskStatus.IN_PROGRESS)

    def _may_be_enqueued(self) -> bool:
        return self._is_at_rest() and self.site.server.status is not TaskStatus.COMPLETED

    def _is_at_rest(self) -> bool:
        server = self.site.server
        return not server.is_in_queue and (server.status.is_final or server.status is TaskStatus.CREATED)

    def _with_fault(self, fault: _Fault, calls: int, after: bool, act: Callable[[], None]) -> None:
        self._happened.add(fault)
        faults = self.site.faults
        faults.after = after
        setattr(faults, fault, calls)
        try:
            act()
        finally:
            faults.kill_in = faults.lose_in = None


def _memory() -> str | None:
    """Thousands of small files, each fsynced: on a file system in memory where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def explored(machine: type[NoTaskIsLost], examples: int) -> Counter[str]:
    """What happened in how many courses of events."""
    asserted: Counter[str] = Counter()

    class Counted(machine):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(asserted)

    run_state_machine_as_test(
        seeded(Counted),
        settings=limits(examples, stateful_step_count=40, suppress_health_check=list(HealthCheck)),
    )
    return asserted


def test_no_task_is_lost() -> None:
    assert_enough(explored(NoTaskIsLost, 400), *HAPPENS)


class NoElementIsLost(NoTaskIsLost):
    """The task's job is an element of a job array, where another task was due in the same pass."""

    new_site = CompanionSite
    site: CompanionSite

    def _settle(self) -> None:
        """Also for the tasks that travel with it: one that is in the queue has a job."""
        super()._settle()
        for _ in range(20):
            if not self.site.companions_without_job():
                break
            self.site.advance(30)
            self.site.run_pass()
        assert not self.site.companions_without_job()

    def _what_happened(self) -> set[str]:
        sizes = self.site.slurm.sizes
        return super()._what_happened() | ({TOGETHER} if max(sizes, default=0) > 1 else set())


def test_no_element_of_an_array_is_lost() -> None:
    assert_enough(
        explored(NoElementIsLost, 100), TOGETHER, CANCELLED, ANOTHER_DAEMON, "kill_in", "lose_in", "completed"
    )
