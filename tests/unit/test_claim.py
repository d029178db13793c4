"""Exactly one of all that try to run a task takes it, whatever answers get lost and whoever died before."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from pretended_site import QUEUE, TASK, Died, PretendedSite

from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ending import Cause
from hpc_agent.domain.ids import JobId, WorkerId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import InputError, ServerUnreachableError
from hpc_agent.executor.claim import UNCERTAIN_WAIT_S, Claimer, Lost, Won, still_ours
from hpc_agent.executor.identity import Identity
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.runs.records import Claim, ExitReport
from hpc_agent.wire.task import RUN_STAMP

HOST = socket.gethostname()


class Jobs:
    """Agents of one task's jobs. ``cluster`` tells attempts apart."""

    def __init__(self, folder: Path) -> None:
        self.site = PretendedSite(folder)
        self.site.server.enqueue(by_person=True)

    def run(self, cluster: str = "c1") -> RunDirectory:
        return self.site.runs.of(attempt_for(cluster, QUEUE, TASK, "1"))

    def agent(self, job: str = "7", *, start: int = 0, cluster: str = "c1", host: str = HOST, pid: int = 0) -> Identity:
        return Identity(
            worker=WorkerId(f"{host}:slurm:{job}"),
            host=host,
            owner=f"job:{job}",
            job=JobId(job),
            restarts=start,
            run_dir=self.run(cluster).path,
            cluster=cluster,
            pid=pid or os.getpid(),
        )

    def claim(self, me: Identity, *, require_queue: bool = True) -> Won | Lost:
        client = self.site.server
        task = client.tasks.get(TASK)
        claimer = Claimer(client, self.run(me.cluster), me, self.site.clock)  # type: ignore[arg-type]
        return claimer.claim(task, require_queue=require_queue)

    @property
    def is_queued(self) -> bool:
        return self.site.server.entry is not None

    def won(self, me: Identity) -> Claim:
        """As after a claim that was won, with the task running."""
        claimed = self.claim(me)
        assert isinstance(claimed, Won)
        self.site.server.there.runtime[RUN_STAMP] = f"{self.run(me.cluster).attempt.id}.{me.restarts}"
        self.site.server.become(TaskStatus.IN_PROGRESS)
        return claimed.claim

    def write(self, claim: Claim, **changes: object) -> None:
        self.run().create().write_claim(msgspec.structs.replace(claim, **changes))

    def report(self, cause: Cause | None = None) -> None:
        at = self.site.clock.now()
        self.run().write_exit_report(ExitReport(status="stopped", reason="its end", exit_code=1, at=at, cause=cause))


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def lost(claimed: Won | Lost) -> str:
    assert isinstance(claimed, Lost), claimed
    return claimed.why


def test_the_winner_has_taken_the_task_off_its_queue_and_says_who_it_is(jobs: Jobs) -> None:
    claimed = jobs.claim(jobs.agent(start=2))
    assert isinstance(claimed, Won)
    assert (claimed.resumed, claimed.silent) == (False, False)
    assert not jobs.is_queued
    written = jobs.run().claim()
    assert written == claimed.claim
    assert (written.state, written.owner, written.start, written.begun) == ("won", "job:7", 2, False)
    assert (written.queue, written.cluster, written.host, written.pid) == (QUEUE, "c1", HOST, os.getpid())


def test_another_job_of_the_attempt_loses(jobs: Jobs) -> None:
    jobs.claim(jobs.agent("7"))
    jobs.site.server.enqueue(by_person=False)
    assert lost(jobs.claim(jobs.agent("8", host="n2"))) == f"job:7 on {HOST} has claimed it"
    assert jobs.is_queued
    assert jobs.run().claim().owner == "job:7"  # type: ignore[union-attr]


def test_of_two_attempts_the_one_that_removes_the_entry_wins(jobs: Jobs) -> None:
    """Two clusters serve one queue; both have seen the task queued."""
    task = jobs.site.server.tasks.get(TASK)
    claimers = [
        Claimer(jobs.site.server, jobs.run(me.cluster), me, jobs.site.clock)  # type: ignore[arg-type]
        for me in (jobs.agent("7"), jobs.agent("7", cluster="c2"))
    ]
    first, second = (claimer.claim(task, require_queue=True) for claimer in claimers)
    assert isinstance(first, Won)
    assert lost(second) == "another agent took it off its queue"
    assert jobs.run("c2").claim() is None


class ReadTooEarly(RunDirectory):
    """Read before another process wrote its claim; the first write of a claim comes after that."""

    def claim(self) -> None:
        return None


def test_of_two_that_saw_no_claim_the_first_to_write_one_wins(jobs: Jobs) -> None:
    jobs.claim(jobs.agent("7"))
    jobs.site.server.enqueue(by_person=False)
    late = ReadTooEarly(jobs.run().path)
    claimer = Claimer(jobs.site.server, late, jobs.agent("8"), jobs.site.clock)  # type: ignore[arg-type]
    assert lost(claimer.claim(jobs.site.server.tasks.get(TASK), require_queue=True)) == "another job has claimed it"
    assert jobs.is_queued
    assert jobs.run().claim().owner == "job:7"  # type: ignore[union-attr]


def test_an_intent_that_is_written_first_keeps_others_out(jobs: Jobs) -> None:
    """The other one is between its intent and its removal."""
    jobs.site.fate.kill_in = 1
    with pytest.raises(Died):
        jobs.claim(jobs.agent("7"))
    jobs.site.fate.kill_in = None
    intent = jobs.run().claim()
    assert intent is not None
    assert intent.state == "intent"
    assert lost(jobs.claim(jobs.agent("8"))) == f"job:7 on {HOST} has claimed it"


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_removal_without_an_answer_is_ours_where_nobody_else_starts_the_task(jobs: Jobs, carried_out: bool) -> None:
    fate = jobs.site.fate
    fate.lose_in, fate.after = 1, True
    if not carried_out:
        removed = jobs.site.server.queues.remove_task

        def unanswered(*arguments: object) -> bool:
            jobs.site.server.queues.remove_task = removed
            raise ServerUnreachableError("no answer", uncertain=True)

        fate.lose_in = None
        jobs.site.server.queues.remove_task = unanswered
    claimed = jobs.claim(jobs.agent())
    assert isinstance(claimed, Won)
    assert not jobs.is_queued
    # Where it is still queued there is nothing to wait for.
    assert (jobs.site.clock.seconds >= UNCERTAIN_WAIT_S) is carried_out


@pytest.mark.parametrize("sign", ["status", "stamp"])
def test_a_removal_without_an_answer_is_anothers_where_that_one_starts_the_task(jobs: Jobs, sign: str) -> None:
    jobs.site.fate.lose_in, jobs.site.fate.after = 1, True
    clock = jobs.site.clock
    sleep = clock.sleep

    def another_starts(seconds: float) -> None:
        sleep(seconds)
        if sign == "stamp":
            jobs.site.server.there.runtime[RUN_STAMP] = "0123abcd.0"
        else:
            jobs.site.server.become(TaskStatus.IN_PROGRESS)

    clock.sleep = another_starts  # type: ignore[method-assign]
    assert lost(jobs.claim(jobs.agent())) == "another agent took it off its queue"
    assert jobs.run().claim() is None


def test_a_removal_that_did_not_reach_the_server_decides_nothing(jobs: Jobs) -> None:
    jobs.site.fate.lose_in = 1
    with pytest.raises(ServerUnreachableError):
        jobs.claim(jobs.agent())
    assert jobs.is_queued
    intent = jobs.run().claim()
    assert intent is not None
    assert intent.state == "intent"


def test_after_a_death_between_intent_and_removal_the_next_start_goes_on(jobs: Jobs) -> None:
    claim = jobs.won(jobs.agent())
    jobs.site.server.enqueue(by_person=False)
    jobs.write(claim, state="intent")
    assert isinstance(jobs.claim(jobs.agent(start=1)), Won)
    assert not jobs.is_queued


def test_after_a_death_between_removal_and_win_the_next_start_goes_on(jobs: Jobs) -> None:
    claim = jobs.won(jobs.agent())
    jobs.write(claim, state="intent")
    jobs.site.server.there.status = TaskStatus.QUEUED
    claimed = jobs.claim(jobs.agent(start=1))
    assert isinstance(claimed, Won)
    assert not claimed.resumed


@pytest.mark.parametrize(
    ("begun", "reported", "silent"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_later_start_of_the_job_goes_on(jobs: Jobs, begun: bool, reported: bool, silent: bool) -> None:
    jobs.write(jobs.won(jobs.agent()), begun=begun)
    if reported:
        jobs.report(Cause.REQUEUED)
    claimed = jobs.claim(jobs.agent(start=1, host="n2"))
    assert isinstance(claimed, Won)
    assert (claimed.resumed, claimed.silent) == (True, silent)
    assert jobs.run().exit_report() is None
    assert jobs.run().claim() == claimed.claim
    assert (claimed.claim.start, claimed.claim.host, claimed.claim.begun) == (1, "n2", False)


def test_a_claim_names_the_workers_that_had_the_task_before(jobs: Jobs) -> None:
    assert jobs.won(jobs.agent(host="n1")).predecessors == ()
    assert jobs.won(jobs.agent(start=1, host="n2")).predecessors == ("n1:slurm:7",)
    jobs.write(jobs.won(jobs.agent(start=2, host="n3")), state="over")
    jobs.site.server.enqueue(by_person=False)
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


def test_of_a_process_on_another_host_nobody_can_say_that_it_died(jobs: Jobs) -> None:
    jobs.won(jobs.agent(host="n9", pid=dead_process()))
    assert "has claimed it" in lost(jobs.claim(jobs.agent()))


def test_what_a_job_ran_to_its_end_does_not_run_in_its_next_start(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.report()
    assert lost(jobs.claim(jobs.agent(start=1))) == "this job already ran it to its end: its end"


def test_the_same_terminal_runs_it_anew_after_its_end(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.report()
    jobs.site.server.become(TaskStatus.COMPLETED)
    jobs.site.server.enqueue(by_person=True)
    claimed = jobs.claim(jobs.agent())
    assert isinstance(claimed, Won)
    assert not claimed.resumed
    assert jobs.run().exit_report() is None


def test_a_run_that_was_told_to_end_is_not_over(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.report(Cause.CANCELLED)
    assert "has claimed it" in lost(jobs.claim(jobs.agent()))


@pytest.mark.parametrize("status", [TaskStatus.STOPPED, TaskStatus.CREATED, TaskStatus.COMPLETED])
def test_a_task_that_was_taken_back_is_not_gone_on_with(jobs: Jobs, status: TaskStatus) -> None:
    jobs.won(jobs.agent())
    jobs.site.server.there.status = status
    assert lost(jobs.claim(jobs.agent(start=1))) == f"the task is {status.value}"


def test_a_task_that_was_enqueued_again_is_left_in_its_queue(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.site.server.enqueue(by_person=True)
    assert lost(jobs.claim(jobs.agent(start=1))) == "it is in queue queue again"
    assert jobs.is_queued


@pytest.mark.parametrize(
    ("begun", "state", "seconds", "silent"),
    [(True, "over", 30, True), (True, "over", 90, False), (False, "over", 30, False), (True, "won", 30, False)],
)
def test_a_run_that_was_taken_over_a_moment_ago_may_still_live(
    jobs: Jobs, begun: bool, state: str, seconds: float, silent: bool
) -> None:
    """On a node that Slurm takes for dead, and the task is in its queue again: the next run waits before it begins."""
    claim = jobs.won(jobs.agent())
    jobs.write(claim, state=state, begun=begun)
    jobs.report()
    jobs.site.clock.seconds += seconds
    jobs.site.server.enqueue(by_person=False)
    claimed = jobs.claim(jobs.agent("8", cluster="c2"))
    assert isinstance(claimed, Won)
    assert (claimed.resumed, claimed.silent) == (False, silent)


def test_a_task_that_another_attempt_runs_is_left_to_it(jobs: Jobs) -> None:
    jobs.won(jobs.agent())
    jobs.site.server.there.runtime[RUN_STAMP] = "0123abcd.0"
    assert lost(jobs.claim(jobs.agent(start=1))) == "run 0123abcd.0 has the task now"


def test_a_task_that_is_not_queued_is_left_alone(jobs: Jobs) -> None:
    jobs.site.server.entry = None
    jobs.site.server.become(TaskStatus.CREATED)
    assert lost(jobs.claim(jobs.agent())) == "the task is created, not queued"
    assert isinstance(jobs.claim(jobs.agent(), require_queue=False), Won)


@pytest.mark.parametrize("status", [TaskStatus.IN_PROGRESS, TaskStatus.PUBLISHED, TaskStatus.PUBLISHING])
def test_a_task_that_runs_or_is_published_is_not_run_by_hand(jobs: Jobs, status: TaskStatus) -> None:
    jobs.site.server.entry = None
    jobs.site.server.there.status = status
    with pytest.raises(InputError, match=str(TASK)):
        jobs.claim(jobs.agent(), require_queue=False)
    assert jobs.run().claim() is None


@pytest.mark.parametrize(
    ("stamp", "worker", "taken"),
    [
        ("its own", "", True),
        ("its own", f"{HOST}:slurm:7", True),
        ("its own", "other:gpu0", False),
        ("0123abcd.0", "", False),
        ("", "", False),
    ],
)
def test_a_queued_task_that_a_dead_start_showed_as_running_is_taken(
    jobs: Jobs, stamp: str, worker: str, taken: bool
) -> None:
    """But not one that runs elsewhere and is in a queue by mistake."""
    claim = jobs.won(jobs.agent("7", cluster="c2"))
    jobs.run("c2").write_claim(msgspec.structs.replace(claim, state="over"))
    jobs.site.server.enqueue(by_person=False)
    there = jobs.site.server.there
    there.status, there.last_worker = TaskStatus.IN_PROGRESS, worker
    there.runtime[RUN_STAMP] = f"{jobs.run('c2').attempt.id}.0" if stamp == "its own" else stamp
    assert isinstance(jobs.claim(jobs.agent("8")), Won) is taken


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, True),
        ({"state": "over"}, False),
        ({"owner": "job:8"}, False),
        ({"start": 1}, False),
        ({"begun": True}, True),
    ],
)
def test_a_run_is_ours_until_the_claim_says_otherwise(jobs: Jobs, changes: dict[str, object], ours: bool) -> None:
    claim = jobs.won(jobs.agent())
    jobs.write(claim, **changes)
    assert still_ours(jobs.run(), claim) is ours


def test_a_claim_that_cannot_be_read_takes_the_run_from_nobody(jobs: Jobs) -> None:
    claim = jobs.won(jobs.agent())
    (jobs.run().path / "claim.json").write_text("{half")
    assert still_ours(jobs.run(), claim)
    (jobs.run().path / "claim.json").unlink()
    assert still_ours(jobs.run(), claim)
