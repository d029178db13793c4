"""Whatever happens in whatever order: no task is lost, none runs twice, each reaches one final status.

The same courses of events every time; ``scripts/explore --minutes N`` looks at new ones.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

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
from pretended_site import PretendedSite, ours

from hpc_agent.domain.ending import Cause
from hpc_agent.domain.job import JobState
from hpc_agent.domain.status import TaskStatus

ENDS = {
    JobState.CANCELLED: Cause.CANCELLED,
    JobState.TIMEOUT: Cause.TIME_LIMIT,
    JobState.NODE_FAIL: Cause.NODE_FAILED,
    JobState.PREEMPTED: Cause.PREEMPTED,
    JobState.OUT_OF_MEMORY: Cause.UNKNOWN,
}


SEVERAL_PROCESSES = "several processes of the task began"
SEVERAL_JOBS = "it had several jobs"
REQUEUED = "a job was requeued"
CANCELLED = "a job was cancelled"
ANOTHER_DAEMON = "another daemon took over"
COMPLETED_BY_ITSELF = "its script completed it"
HAPPENS = (
    *(SEVERAL_PROCESSES, SEVERAL_JOBS, REQUEUED, CANCELLED, ANOTHER_DAEMON, COMPLETED_BY_ITSELF, "kill_in", "lose_in"),
    *("completed", "failed", "stopped", "created"),
)
"""Without these the assertions below say little: each must be met in some courses of events."""

KILLED, RUN_AND_REQUEUED = 5, 6
HELD = "JobHeldUser"
NEVER = ("DependencyNeverSatisfied", "launch failed requeued held")


class NoTaskIsLost(RuleBasedStateMachine):
    def __init__(self, asserted: Counter[str] | None = None) -> None:
        """``asserted``: what happened in how many courses of events, so that something was asserted of it."""
        super().__init__()
        self._asserted = Counter() if asserted is None else asserted
        self._happened: set[str] = set()
        self._processes = 0
        self._begun = 0
        self.folder = Path(tempfile.mkdtemp(prefix="pretended", dir=_memory()))
        self.site = PretendedSite(self.folder)
        self.site.server.enqueue(by_person=True)
        self.interferences = 0
        self.gave_up = False
        """Its user took it off the queue, or aborted it."""

    @initialize(
        steps=st.sampled_from([3, 3, 3, -2, -1, 0, 1, 2, 4, KILLED, RUN_AND_REQUEUED]), interferences=st.integers(0, 4)
    )
    def it_has_come_so_far(self, steps: int, interferences: int) -> None:
        """-2: it waits in its queue; -1: its job waits; 0: the job runs; from 1 on: so many steps of its executor.
        After three of them the user's process runs; ``KILLED``: and its agent was killed then;
        ``RUN_AND_REQUEUED``: and Slurm put the job back.

        ``interferences``: how often a person, or another agent, takes it or enqueues it again. Without that limit next
        to no course of events would come to an end of its own.
        """
        self.interferences = interferences
        if steps > -2:
            self.site.look()
        if steps > -1:
            self.site.start_job(*self.site.startable())
        for _ in range(3 if steps in (KILLED, RUN_AND_REQUEUED) else steps):
            self.site.living()[0].step()
        if steps == KILLED:
            self.the_agent_is_killed()
        if steps == RUN_AND_REQUEUED:
            self.site.requeue(self.site.running()[0], kill=True, zombie=False)

    @rule(steps=st.integers(1, 3))
    def all_goes_well_for_a_while(self, steps: int) -> None:
        """What takes many rules one by one: a job of a task that waits is submitted, started, and goes on."""
        self.accounting_catches_up()
        for _ in range(2):
            self.site.clock.seconds += 30
            self.site.look()
        for job in self.site.startable():
            self.site.start_job(job)
        for executor in self.site.living():
            for _ in range(steps):
                if not (executor.over or executor.process):
                    executor.step()

    # ------------------------------------------------ daemon

    @rule(passes=st.integers(1, 3), seconds=st.sampled_from([1, 10, 70, 700]))
    def the_daemon_looks(self, passes: int, seconds: int) -> None:
        for _ in range(passes):
            self.site.clock.seconds += seconds
            self.site.look()

    @rule(calls=st.integers(0, 12), after=st.booleans(), seconds=st.sampled_from([1, 70]))
    def the_daemon_dies_in_a_pass(self, calls: int, after: bool, seconds: int) -> None:
        self.site.clock.seconds += seconds
        self._with_fate("kill_in", calls, after, self.site.look)

    @rule(calls=st.integers(0, 12), after=st.booleans())
    def an_answer_to_the_daemon_gets_lost(self, calls: int, after: bool) -> None:
        self._with_fate("lose_in", calls, after, self.site.look)

    @rule()
    def another_daemon_takes_over(self) -> None:
        self.site.restart()
        self._happened.add(ANOTHER_DAEMON)

    # ------------------------------------------------ Slurm

    @precondition(lambda self: self.site.startable())
    @rule(data=st.data())
    def a_job_starts(self, data: st.DataObject) -> None:
        self.site.start_job(data.draw(st.sampled_from(self.site.startable()), "job"))

    @precondition(lambda self: self.site.startable())
    @rule(data=st.data(), why=st.sampled_from([HELD, *NEVER]))
    def a_job_does_not_start(self, data: st.DataObject, why: str) -> None:
        """Until somebody releases it, or never."""
        data.draw(st.sampled_from(self.site.startable()), "job").held = why

    @precondition(lambda self: self.site.running())
    @rule(
        data=st.data(),
        state=st.sampled_from(list(ENDS)),
        kill=st.booleans(),
        zombie=st.booleans(),
    )
    def slurm_ends_a_job(self, data: st.DataObject, state: JobState, kill: bool, zombie: bool) -> None:
        job = data.draw(st.sampled_from(self.site.running()), "job")
        self.site.end_job(job, state, ENDS[state], kill=kill, zombie=zombie and state is JobState.NODE_FAIL)

    @precondition(lambda self: self.site.running())
    @rule(data=st.data(), kill=st.booleans(), zombie=st.booleans())
    def slurm_requeues_a_job(self, data: st.DataObject, kill: bool, zombie: bool) -> None:
        job = data.draw(st.sampled_from(self.site.running()), "job")
        self.site.requeue(job, kill=kill, zombie=zombie)

    @precondition(lambda self: self.site.waiting())
    @rule(data=st.data())
    def a_waiting_job_is_cancelled_by_hand(self, data: st.DataObject) -> None:
        self.site.cluster.end(data.draw(st.sampled_from(self.site.waiting()), "job"), JobState.CANCELLED)

    @rule()
    def accounting_catches_up(self) -> None:
        for job in self.site.cluster.jobs.values():
            job.recorded = job.record is not None

    @rule(answers=st.booleans())
    def accounting_fails_or_answers_again(self, answers: bool) -> None:
        self.site.cluster.accounting_answers = answers

    # ------------------------------------------------ jobs

    @precondition(lambda self: self.site.living())
    @rule(data=st.data(), steps=st.integers(1, 4))
    def a_job_goes_on(self, data: st.DataObject, steps: int) -> None:
        executor = data.draw(st.sampled_from(self.site.living()), "executor")
        for _ in range(steps):
            if not executor.over:
                executor.step()

    @precondition(lambda self: self.site.living())
    @rule(data=st.data(), calls=st.integers(0, 4), after=st.booleans(), lost=st.booleans())
    def a_job_dies_or_misses_an_answer(self, data: st.DataObject, calls: int, after: bool, lost: bool) -> None:
        executor = data.draw(st.sampled_from(self.site.living()), "executor")
        self._with_fate("lose_in" if lost else "kill_in", calls, after, executor.step)

    @precondition(lambda self: self._runs())
    @rule()
    def the_agent_is_killed(self) -> None:
        for executor in self.site.living():
            executor.die()

    @precondition(lambda self: self._runs())
    @rule(state=st.sampled_from([JobState.TIMEOUT, JobState.OUT_OF_MEMORY]), kill=st.booleans())
    def its_time_or_memory_is_used_up(self, state: JobState, kill: bool) -> None:
        for job in self.site.running():
            self.site.end_job(job, state, ENDS[state], kill=kill, zombie=False)

    @precondition(lambda self: self.site.server.there.status is TaskStatus.IN_PROGRESS and self._runs())
    @rule()
    def a_script_completes_its_own_task(self) -> None:
        """And goes on."""
        self.site.server.become(TaskStatus.COMPLETED, "by its script")
        self._happened.add(COMPLETED_BY_ITSELF)

    # ------------------------------------------------ the server, and other agents

    @rule()
    def an_answer_lacks_the_task(self) -> None:
        self.site.server.leaves_out = True

    @precondition(lambda self: self.interferences and self.site.server.entry is not None)
    @rule()
    def another_agent_takes_it(self) -> None:
        self.interferences -= 1
        self.site.another_agent_takes_it()
        self._processes += 1

    @precondition(lambda self: self.site.another_runs)
    @rule(ends=st.booleans())
    def another_agent_goes_on(self, ends: bool) -> None:
        self.site.another_agent_looks(ends=ends)

    # ------------------------------------------------ its user

    @precondition(lambda self: self.interferences and self.site.server.there.status is not TaskStatus.CREATED)
    @rule()
    def its_user_resets_it(self) -> None:
        self.interferences -= 1
        self.site.its_user_resets_it()
        self.gave_up = True

    @precondition(lambda self: self.interferences and self.site.server.entry is not None)
    @rule()
    def its_user_takes_it_off_the_queue(self) -> None:
        self.interferences -= 1
        self.site.server.entry = None
        self.site.server.become(TaskStatus.CREATED)
        self.gave_up = True

    @precondition(lambda self: self.interferences and self._is_active())
    @rule()
    def its_user_aborts_it(self) -> None:
        self.interferences -= 1
        server = self.site.server
        self.gave_up = True
        if server.there.status is TaskStatus.QUEUED:
            server.entry = None
            server.become(TaskStatus.STOPPED, "aborted")
        else:
            server.there.message = "stopping"

    @precondition(lambda self: self.interferences and self._may_be_enqueued())
    @rule()
    def its_user_enqueues_it_again(self) -> None:
        self.interferences -= 1
        self.site.begun = self.site.finished = 0
        self.site.server.enqueue(by_person=True)
        self.gave_up = False

    # ------------------------------------------------ what must hold

    @invariant()
    def no_two_processes_at_once(self) -> None:
        self._processes += max(self.site.begun - self._begun, 0)
        self._begun = self.site.begun
        assert self.site.together <= 1

    @invariant()
    def it_finishes_once(self) -> None:
        assert self.site.finished <= 1
        assert self.site.server.there.finals <= 1
        self._happened.add(self.site.server.there.status.value)

    @invariant()
    def a_script_that_completed_its_own_task_is_not_cut_short(self) -> None:
        assert TaskStatus.COMPLETED not in self.site.cluster.cut_short

    @invariant()
    def no_job_of_others_is_touched(self) -> None:
        assert ours(self.site, self.site.cluster.cancelled)

    def teardown(self) -> None:
        """Faults end, time passes: then the task must be where it belongs."""
        try:
            self._settle()
            server = self.site.server
            assert self._is_at_rest(), f"{server.there} in queue: {server.entry}"
            assert server.there.finals == (1 if server.there.status.is_final else 0)
            assert server.there.status.is_final or self.gave_up
            assert not self.site.running() and not self.site.waiting()
            self.no_two_processes_at_once()
            self.it_finishes_once()
            self.no_job_of_others_is_touched()
            self._asserted.update(self._what_happened())
        finally:
            self.site.close()
            shutil.rmtree(self.folder)

    def _what_happened(self) -> set[str]:
        site = self.site
        told = {
            SEVERAL_PROCESSES: self._processes > 1,
            SEVERAL_JOBS: len(site.cluster.jobs) > 1,
            REQUEUED: any(job.restarts for job in site.cluster.jobs.values()),
            CANCELLED: bool(site.cluster.cancelled),
        }
        return self._happened | {what for what, so in told.items() if so}

    def _runs(self) -> bool:
        return any(executor.process for executor in self.site.living())

    def _settle(self) -> None:
        self.site.cluster.accounting_answers = True
        for _ in range(60):
            self.accounting_catches_up()
            self.site.clock.seconds += 30
            self.site.look()
            self.site.another_agent_looks(ends=True)
            for job in self.site.waiting():
                if job.held == HELD:
                    job.held = ""
                if not job.held:
                    self.site.start_job(job)
            for executor in self.site.living():
                executor.step()
            if self._is_at_rest() and not (self.site.living() or self.site.running() or self.site.waiting()):
                return

    def _is_active(self) -> bool:
        return self.site.server.there.status in (TaskStatus.QUEUED, TaskStatus.IN_PROGRESS)

    def _may_be_enqueued(self) -> bool:
        return self._is_at_rest() and self.site.server.there.status is not TaskStatus.COMPLETED

    def _is_at_rest(self) -> bool:
        server = self.site.server
        return server.entry is None and (server.there.status.is_final or server.there.status is TaskStatus.CREATED)

    def _with_fate(self, what: str, calls: int, after: bool, act: object) -> None:
        self._happened.add(what)
        fate = self.site.fate
        fate.after = after
        setattr(fate, what, calls)
        try:
            act()  # type: ignore[operator]
        finally:
            fate.kill_in = fate.lose_in = None


def _memory() -> str | None:
    """Thousands of small files, each fsynced: on a file system in memory where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def test_no_task_is_lost() -> None:
    asserted: Counter[str] = Counter()

    def machine() -> NoTaskIsLost:
        return NoTaskIsLost(asserted)

    run_state_machine_as_test(
        seeded(machine),
        settings=limits(400, stateful_step_count=40, suppress_health_check=list(HealthCheck)),
    )
    assert_enough(asserted, *HAPPENS)
