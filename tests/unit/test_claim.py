"""Exactly one of all that try to run a task takes it, whatever answers get lost and whichever runs died before."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from simulated_faults import ProcessKilledError
from simulated_site import SimulatedSite

from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import JobId, WorkerId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.termination_cause import TerminationCause
from hpc_agent.errors import InputError, ServerUnreachableError
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.claim import UNCERTAIN_WAIT_S, Claimer, ClaimWatch, Lost, Won, still_ours
from hpc_agent.retry import ONCE
from hpc_agent.runs.attempt_records import ClaimRecord, ExitReport
from hpc_agent.runs.directory import RunDirectory

HOST = socket.gethostname()
REMOVAL = "queues.remove_task"
"""The call by which a claim is decided."""
ANOTHER_RUN = "0123abcd.0"
"""The stamp of a run of no attempt here."""


class Jobs:
    """Agents of one task's jobs. ``cluster`` tells attempts apart."""

    def __init__(self, folder: Path) -> None:
        self.site = SimulatedSite(folder)
        self.server = self.site.server
        self.client = self.server.client
        self.task = self.server.task
        self.site.enqueue()

    def run(self, cluster: str = "c1") -> RunDirectory:
        return self.site.runs.of(attempt_for(cluster, self.server.queue, self.task, "1"))

    def agent(
        self, job: str = "7", *, start: int = 0, cluster: str = "c1", host: str = HOST, pid: int = 0
    ) -> AgentIdentity:
        return AgentIdentity(
            worker=WorkerId(f"{host}:slurm:{job}"),
            host=host,
            owner=f"job:{job}",
            job=JobId(job),
            restart_count=start,
            run_dir=self.run(cluster).path,
            cluster=cluster,
            pid=pid or os.getpid(),
        )

    def claim(self, me: AgentIdentity, *, require_queue: bool = True) -> Won | Lost:
        task = self.client.tasks.get(self.task)
        return self.claimer(me, self.run(me.cluster)).claim(task, require_queue=require_queue)

    def claimer(self, me: AgentIdentity, run: RunDirectory) -> Claimer:
        return Claimer(self.client, run, me, self.site.clock)

    def at_removal(self, act: Callable[[], None]) -> None:
        """Do this once, just before the task is taken off its queue."""
        faults = self.site.faults

        def look(name: str) -> None:
            if name == REMOVAL:
                faults.before = lambda _name: None
                act()

        faults.before = look

    def lose_answer(self) -> None:
        """Of the next call, which is carried out."""
        self.site.faults.lose_in, self.site.faults.after = 0, True

    @property
    def is_queued(self) -> bool:
        return self.server.is_in_queue

    @property
    def owner(self) -> str:
        """Whose the claim is."""
        claim = self.run().claim()
        assert claim is not None
        return claim.owner

    def won(self, me: AgentIdentity) -> ClaimRecord:
        """As after a claim that was won, with the task running."""
        claimed = self.claim(me)
        assert isinstance(claimed, Won)
        self.stamp(f"{self.run(me.cluster).attempt.id}.{me.restart_count}")
        self.start()
        return claimed.claim

    def stamp(self, stamp: str) -> None:
        self.client.tasks.set_run_token(self.task, stamp, {}, budget=ONCE)

    def start(self) -> None:
        self.client.tasks.started(self.task, "worker started execution", "", budget=ONCE)

    def put_back(self) -> None:
        """As a daemon does with a task whose job has ended."""
        self.client.queues.enqueue_at_head(self.server.queue, self.task, "its job ended")

    def add_entry(self) -> None:
        """To its queue, which leaves its status as it is."""
        self.server("queues.add_task", queue=self.server.queue, task=self.task)

    def enqueue_again(self) -> None:
        """As its user does."""
        self.site.reset_task()
        self.site.enqueue()

    def write(self, claim: ClaimRecord, **changes: object) -> None:
        self.run().create().write_claim(msgspec.structs.replace(claim, **changes))

    def report(self, cause: TerminationCause | None = None, **more: Any) -> None:
        at = self.site.clock.now()
        report = ExitReport(status="stopped", reason="its end", exit_code=1, at=at, cause=cause, **more)
        self.run().write_exit_report(report)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path)
    yield jobs
    jobs.site.close()


def lost(claimed: Won | Lost) -> str:
    assert isinstance(claimed, Lost), claimed
    return claimed.reason


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_the_winner_has_taken_the_task_off_its_queue_and_says_who_it_is(jobs: Jobs) -> None:
    claimed = jobs.claim(jobs.agent(start=2))
    assert isinstance(claimed, Won)
    assert (claimed.resumed, claimed.silent) == (False, False)
    assert not jobs.is_queued
    written = jobs.run().claim()
    assert written == claimed.claim
    assert (written.state, written.owner, written.restart_count, written.user_process_started) == (
        "won",
        "job:7",
        2,
        False,
    )
    assert (written.queue, written.cluster, written.host, written.pid) == (jobs.server.queue, "c1", HOST, os.getpid())


def test_another_job_of_the_attempt_loses(jobs: Jobs) -> None:
    jobs.claim(jobs.agent("7"))
    jobs.add_entry()
    assert lost(jobs.claim(jobs.agent("8", host="n2"))) == f"job:7 on {HOST} has claimed it"
    assert jobs.is_queued
    assert jobs.owner == "job:7"


def test_of_two_attempts_the_one_that_removes_the_entry_wins(jobs: Jobs) -> None:
    """Two clusters serve one queue; both have seen the task queued."""
    task = jobs.client.tasks.get(jobs.task)
    agents = jobs.agent("7"), jobs.agent("7", cluster="c2")
    first, second = (jobs.claimer(me, jobs.run(me.cluster)).claim(task, require_queue=True) for me in agents)
    assert isinstance(first, Won)
    assert lost(second) == "another agent took it off its queue"
    assert jobs.run("c2").claim() is None


class ReadTooEarly(RunDirectory, frozen=True):
    """Read before another process wrote its claim; the first write of a claim comes after that."""

    def claim(self) -> None:
        return None


def test_of_two_that_saw_no_claim_the_first_to_write_one_wins(jobs: Jobs) -> None:
    jobs.claim(jobs.agent("7"))
    jobs.add_entry()
    late = ReadTooEarly(jobs.run().path)
    task = jobs.client.tasks.get(jobs.task)
    claimed = jobs.claimer(jobs.agent("8"), late).claim(task, require_queue=True)
    assert lost(claimed) == "another job has claimed it"
    assert jobs.is_queued
    assert jobs.owner == "job:7"


def test_an_intent_that_is_written_first_keeps_others_out(jobs: Jobs) -> None:
    """The other one is between its intent and its removal."""
    jobs.at_removal(raises(ProcessKilledError()))
    with pytest.raises(ProcessKilledError):
        jobs.claim(jobs.agent("7"))
    intent = jobs.run().claim()
    assert intent is not None
    assert intent.state == "intent"
    assert lost(jobs.claim(jobs.agent("8"))) == f"job:7 on {HOST} has claimed it"


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_removal_without_an_answer_is_ours_where_no_other_job_starts_the_task(jobs: Jobs, carried_out: bool) -> None:
    unanswered = raises(ServerUnreachableError("no answer", uncertain=True))
    jobs.at_removal(jobs.lose_answer if carried_out else unanswered)
    claimed = jobs.claim(jobs.agent())
    assert isinstance(claimed, Won)
    assert not jobs.is_queued
    # Where it is still queued there is nothing to wait for.
    assert (jobs.site.clock.seconds >= UNCERTAIN_WAIT_S) is carried_out


@pytest.mark.parametrize("sign", ["status", "stamp"])
def test_a_removal_without_an_answer_is_anothers_where_that_one_starts_the_task(jobs: Jobs, sign: str) -> None:
    jobs.at_removal(jobs.lose_answer)

    def another_starts() -> None:
        if sign == "stamp":
            jobs.stamp(ANOTHER_RUN)
        else:
            jobs.start()

    jobs.site.clock.at(jobs.site.clock.seconds + 1, another_starts)
    assert lost(jobs.claim(jobs.agent())) == "another agent took it off its queue"
    assert jobs.run().claim() is None


def test_run_that_is_stamped_before_the_first_look_is_anothers(jobs: Jobs) -> None:
    """The server was away until then, and the pause between two tries can be long."""

    def another_wins() -> None:
        jobs.server("queues.remove_task", queue=jobs.server.queue, task=jobs.task)
        jobs.stamp(ANOTHER_RUN)
        raise ServerUnreachableError("no answer", uncertain=True)

    jobs.at_removal(another_wins)
    assert lost(jobs.claim(jobs.agent())) == "another agent took it off its queue"
    assert jobs.run().claim() is None


def test_a_removal_that_did_not_reach_the_server_decides_nothing(jobs: Jobs) -> None:
    jobs.at_removal(raises(ServerUnreachableError("no connection", uncertain=False)))
    with pytest.raises(ServerUnreachableError):
        jobs.claim(jobs.agent())
    assert jobs.is_queued
    intent = jobs.run().claim()
    assert intent is not None
    assert intent.state == "intent"


def test_after_a_death_between_intent_and_removal_the_next_start_goes_on(jobs: Jobs) -> None:
    claim = jobs.won(jobs.agent())
    jobs.put_back()
    jobs.write(claim, state="intent")
    assert isinstance(jobs.claim(jobs.agent(start=1)), Won)
    assert not jobs.is_queued


def test_after_a_death_between_removal_and_win_the_next_start_goes_on(jobs: Jobs) -> None:
    removed = jobs.claim(jobs.agent())
    assert isinstance(removed, Won)
    jobs.write(removed.claim, state="intent")
    claimed = jobs.claim(jobs.agent(start=1))
    assert isinstance(claimed, Won)
    assert not claimed.resumed


@pytest.mark.parametrize(
    ("user_process_started", "reported", "silent"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_later_start_of_the_job_goes_on(jobs: Jobs, user_process_started: bool, reported: bool, silent: bool) -> None:
    jobs.write(jobs.won(jobs.agent()), user_process_started=user_process_started)
    if reported:
        jobs.report(TerminationCause.REQUEUED)
    claimed = jobs.claim(jobs.agent(start=1, host="n2"))
    assert isinstance(claimed, Won)
    assert (claimed.resumed, claimed.silent) == (True, silent)
    assert jobs.run().exit_report() is None
    assert jobs.run().claim() == claimed.claim
    assert (claimed.claim.restart_count, claimed.claim.host, claimed.claim.user_process_started) == (1, "n2", False)


def test_a_later_start_leaves_ranks_that_may_run_the_time_to_end(jobs: Jobs) -> None:
    """Of a start that has reported its end, on a node that did not answer it."""
    jobs.write(jobs.won(jobs.agent()), user_process_started=True)
    jobs.report(TerminationCause.REQUEUED, ranks_may_run=True)
    claimed = jobs.claim(jobs.agent(start=1, host="n2"))
    assert isinstance(claimed, Won)
    assert claimed.silent and claimed.claim.predecessor_may_run


def test_a_claim_names_the_workers_that_had_the_task_before(jobs: Jobs) -> None:
    assert jobs.won(jobs.agent(host="n1")).predecessors == ()
    assert jobs.won(jobs.agent(start=1, host="n2")).predecessors == ("n1:slurm:7",)
    jobs.write(jobs.won(jobs.agent(start=2, host="n3")), state="over")
    jobs.put_back()
    assert jobs.won(jobs.agent("8", cluster="c2", host="n4")).predecessors == (
        "n1:slurm:7",
        "n2:slurm:7",
        "n3:slurm:7",
    )


def test_an_earlier_start_that_wakes_up_is_too_late(jobs: Jobs) -> None:
    jobs.won(jobs.agent(start=1))
    assert lost(jobs.claim(jobs.agent(start=0))) == "a later start of this job has it"


def test_a_start_from_which_the_daemon_took_the_task_does_not_go_on(jobs: Jobs) -> None:
    jobs.write(jobs.won(jobs.agent()), state="over")
    assert lost(jobs.claim(jobs.agent(start=1))) == "its daemon has taken the task from this job"


def dead_process() -> int:
    argv = [sys.executable, "-S", "-c", "import os; print(os.getpid())"]
    return int(subprocess.run(argv, capture_output=True, check=True).stdout)


def test_a_second_process_of_the_same_start_loses_while_the_first_lives(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    assert lost(jobs.claim(jobs.agent(pid=1))) == f"another process of this job, on {HOST}, has claimed it"
    on_another_host = replace(jobs.agent(), host="n2")
    assert "has claimed it" in lost(jobs.claim(on_another_host))


def test_a_second_process_of_the_same_start_goes_on_where_the_first_died(jobs: Jobs) -> None:
    jobs.won(jobs.agent(pid=dead_process()))
    claimed = jobs.claim(jobs.agent())
    assert isinstance(claimed, Won)
    assert claimed.resumed


def test_process_that_got_the_number_of_the_claimant_is_not_taken_for_it(jobs: Jobs) -> None:
    jobs.won(jobs.agent(pid=1))
    claim = jobs.run().claim()
    assert claim is not None and claim.process is not None
    earlier = msgspec.structs.replace(claim.process, ticks=claim.process.ticks - 1)
    jobs.run().write_claim(msgspec.structs.replace(claim, process=earlier))
    claimed = jobs.claim(jobs.agent())
    assert isinstance(claimed, Won) and claimed.resumed


def test_claim_of_an_older_version_is_known_by_its_number_alone(jobs: Jobs) -> None:
    jobs.won(jobs.agent(pid=1))
    claim = jobs.run().claim()
    assert claim is not None
    jobs.run().write_claim(msgspec.structs.replace(claim, process=None))
    assert "another process of this job" in lost(jobs.claim(jobs.agent()))


def test_a_process_on_another_host_is_never_taken_for_dead(jobs: Jobs) -> None:
    jobs.won(jobs.agent(host="n9", pid=dead_process()))
    assert "has claimed it" in lost(jobs.claim(jobs.agent()))


def test_what_a_job_ran_to_its_end_does_not_run_in_its_next_start(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.report()
    assert lost(jobs.claim(jobs.agent(start=1))) == "this job already ran it to its end: its end"


def test_the_same_terminal_runs_it_again_after_its_end(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.report()
    jobs.server.complete()
    jobs.enqueue_again()
    claimed = jobs.claim(jobs.agent())
    assert isinstance(claimed, Won)
    assert not claimed.resumed
    assert jobs.run().exit_report() is None


def test_a_run_that_was_terminated_is_not_over(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.report(TerminationCause.CANCELLED)
    assert "has claimed it" in lost(jobs.claim(jobs.agent()))


@pytest.mark.parametrize(
    ("call", "status"),
    [("tasks.stopped", "stopped"), ("tasks.reset", "created"), ("tasks.completed", "completed")],
)
def test_a_task_that_was_taken_back_is_not_gone_on_with(jobs: Jobs, call: str, status: str) -> None:
    jobs.won(jobs.agent())
    jobs.server(call, task=jobs.task, force=True)
    assert lost(jobs.claim(jobs.agent(start=1))) == f"it is {status}"


def test_a_task_that_was_enqueued_again_is_left_in_its_queue(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.enqueue_again()
    assert lost(jobs.claim(jobs.agent(start=1))) == "it is in queue queue again"
    assert jobs.is_queued


@pytest.mark.parametrize(
    ("user_process_started", "state", "seconds", "silent"),
    [(True, "over", 30, True), (True, "over", 90, False), (False, "over", 30, False), (True, "won", 30, False)],
)
def test_a_run_that_was_taken_over_a_moment_ago_may_still_live(
    jobs: Jobs, user_process_started: bool, state: str, seconds: float, silent: bool
) -> None:
    """On a node that Slurm takes for dead, and the task is in its queue again: the next run waits before it begins."""
    claim = jobs.won(jobs.agent())
    jobs.write(claim, state=state, user_process_started=user_process_started)
    jobs.report()
    jobs.site.clock.advance(seconds)
    jobs.put_back()
    claimed = jobs.claim(jobs.agent("8", cluster="c2"))
    assert isinstance(claimed, Won)
    assert (claimed.resumed, claimed.silent) == (False, silent)


def test_a_task_that_another_attempt_runs_is_left_to_it(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.stamp(ANOTHER_RUN)
    assert lost(jobs.claim(jobs.agent(start=1))) == f"run {ANOTHER_RUN} has the task now"


def test_a_task_that_is_not_queued_is_left_alone(jobs: Jobs) -> None:
    jobs.server.dequeue()
    assert lost(jobs.claim(jobs.agent())) == "it is a draft, not queued; enqueue it first"
    assert isinstance(jobs.claim(jobs.agent(), require_queue=False), Won)


def test_a_process_of_the_same_job_that_comes_second_knows_that_its_job_runs_the_task(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.server.set_status(TaskStatus.IN_PROGRESS)
    second = jobs.claimer(jobs.agent(), jobs.run("elsewhere")).claim(
        jobs.client.tasks.get(jobs.task), require_queue=True
    )
    assert isinstance(second, Lost) and second.by_this_job


@pytest.mark.parametrize(("becomes", "expected"), [("won", True), ("intent", False)])
def test_of_the_processes_of_a_step_the_one_that_removes_the_entry_is_waited_for(
    jobs: Jobs, becomes: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sibling, clock = jobs.run("sibling"), jobs.site.clock
    intent = ClaimRecord(state="intent", at=clock.now(), owner=jobs.agent().owner, host=HOST)

    def removed_by_the_sibling() -> None:
        sibling.create().first_claim(intent)
        jobs.server.dequeue()

    def records_it(seconds: float) -> None:
        clock.advance(seconds)
        sibling.write_claim(msgspec.structs.replace(intent, state=becomes))

    jobs.at_removal(removed_by_the_sibling)
    monkeypatch.setattr(clock, "sleep", records_it)
    second = jobs.claim(replace(jobs.agent(), step_processes=3))
    assert lost(second) == "another agent took it off its queue"
    assert isinstance(second, Lost) and second.by_this_job is expected


@pytest.mark.parametrize("processes", [1, 4])
def test_a_task_that_its_own_job_ran_before_is_left_quietly_in_a_step_of_several_only(
    jobs: Jobs, processes: int
) -> None:
    jobs.won(jobs.agent())
    jobs.server.set_status(TaskStatus.COMPLETED)
    me = replace(jobs.agent(), step_processes=processes)
    later = jobs.claimer(me, jobs.run("elsewhere")).claim(jobs.client.tasks.get(jobs.task), require_queue=True)
    assert isinstance(later, Lost) and later.by_this_job is (processes > 1)


def test_another_job_that_comes_second_has_lost_the_task(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    second = jobs.claim(jobs.agent("8"))
    assert isinstance(second, Lost) and not second.by_this_job


@pytest.mark.parametrize("status", [TaskStatus.IN_PROGRESS, TaskStatus.PUBLISHED, TaskStatus.PUBLISHING])
def test_a_task_that_runs_or_is_published_is_not_run_by_hand(jobs: Jobs, status: TaskStatus) -> None:
    jobs.server.dequeue()
    jobs.server.set_status(status)
    with pytest.raises(InputError, match=str(jobs.task)):
        jobs.claim(jobs.agent(), require_queue=False)
    assert jobs.run().claim() is None


@pytest.mark.parametrize(
    ("stamp", "worker", "taken"),
    [
        ("its own", "", True),
        ("its own", f"{HOST}:slurm:7", True),
        ("its own", "other:gpu0", False),
        (ANOTHER_RUN, "", False),
        ("", "", False),
    ],
)
def test_a_queued_task_that_a_dead_start_showed_as_running_is_taken(
    jobs: Jobs, stamp: str, worker: str, taken: bool
) -> None:
    """But not one that runs elsewhere and is in a queue by mistake."""
    claim = jobs.won(jobs.agent("7", cluster="c2"))
    jobs.run("c2").write_claim(msgspec.structs.replace(claim, state="over"))
    jobs.add_entry()
    if stamp != "its own":
        jobs.stamp(stamp)
    if worker:
        jobs.server.report(WorkerId(worker))
    assert isinstance(jobs.claim(jobs.agent("8")), Won) is taken


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, True),
        ({"state": "over"}, False),
        ({"owner": "job:8"}, False),
        ({"restart_count": 1}, False),
        ({"user_process_started": True}, True),
    ],
)
def test_a_run_is_ours_until_the_claim_says_otherwise(jobs: Jobs, changes: dict[str, object], ours: bool) -> None:
    claim = jobs.won(jobs.agent())
    watch = ClaimWatch(jobs.run(), claim)
    assert watch.still_ours()
    jobs.write(claim, **changes)
    assert still_ours(jobs.run(), claim) is ours
    assert watch.still_ours() is ours
    assert watch.still_ours() is ours


def test_a_claim_that_cannot_be_read_takes_the_run_from_no_job(jobs: Jobs) -> None:
    claim = jobs.won(jobs.agent())
    watch = ClaimWatch(jobs.run(), claim)
    (jobs.run().path / "claim.json").write_text("{half")
    assert still_ours(jobs.run(), claim)
    assert watch.still_ours()
    (jobs.run().path / "claim.json").unlink()
    assert still_ours(jobs.run(), claim)
    assert watch.still_ours()
    jobs.write(claim, state="over")
    assert not watch.still_ours()
