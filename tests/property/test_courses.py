"""Single courses of events, from the daemon's side: each was once answered wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_cluster import SimulatedJob
from simulated_executor import SimulatedExecutor
from simulated_site import SimulatedSite

from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.job import JobState
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.termination_cause import TerminationCause
from hpc_agent.errors import ServerUnreachableError


def look(site: SimulatedSite, passes: int = 2, seconds: float = 30) -> None:
    """Accounting knows all by then."""
    for _ in range(passes):
        site.advance(seconds)
        site.cluster.update_accounting()
        site.run_pass()


def running(site: SimulatedSite) -> tuple[SimulatedJob, SimulatedExecutor]:
    """The next job of the task, whose process runs."""
    look(site)
    [job] = site.cluster.startable_jobs()
    executor = site.start_job(job)
    while not executor.has_process:
        executor.step()
    return job, executor


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SimulatedSite]:
    site = SimulatedSite(tmp_path, on_time_limit="requeue", max_restarts=1)
    site.enqueue()
    yield site
    site.close()


def test_a_requeue_that_is_not_permitted_costs_one_restart_and_not_two(site: SimulatedSite) -> None:
    """The executor counts it, asks for it in vain, and leaves it to the daemon."""
    for _ in range(2):
        job, executor = running(site)
        executor.run.count_requeue(0)
        site.end_job(job, JobState.FAILED, TerminationCause.TIME_LIMIT)
        look(site, passes=6)
    assert site.server.status is TaskStatus.FAILED
    assert site.server.reason.endswith("it was restarted once before (max_restarts)")


def test_a_job_that_always_ends_between_claim_and_start_is_given_up(site: SimulatedSite) -> None:
    ended = 0
    for _ in range(4):
        look(site)
        for job in site.cluster.startable_jobs():
            site.start_job(job).step()  # it claims the task …
            site.end_job(job, JobState.FAILED, TerminationCause.UNKNOWN, kill=True)
            ended += 1
        look(site, passes=4)
    assert ended == 2
    assert site.server.status is TaskStatus.FAILED
    assert "ended before it started; it was restarted once before" in site.server.reason


def test_a_daemon_that_died_while_it_refused_a_job_that_never_starts_leaves_no_task_behind(site: SimulatedSite) -> None:
    look(site)
    [job] = site.cluster.pending_jobs()
    job.held = "DependencyNeverSatisfied"
    site.faults.after = True
    for calls in range(12):
        site.faults.kill_in = calls
        site.run_pass()
        if not site.server.is_in_queue:
            break
    site.faults.kill_in = None
    assert (site.server.added, site.server.status) == (None, TaskStatus.QUEUED)
    job.held = "JobHeldUser"  # its cause was removed halfway
    for _ in range(20):
        look(site)
        for other in site.cluster.pending_jobs():
            other.held = other.held or "DependencyNeverSatisfied"
    assert site.server.status is TaskStatus.FAILED
    assert not site.cluster.pending_jobs()


def test_a_script_that_completed_its_own_task_goes_on(site: SimulatedSite) -> None:
    job, executor = running(site)
    site.server.complete()
    look(site, passes=5, seconds=70)
    assert (job.record, site.cluster.cancelled_while) == (None, [])
    executor.finish()
    look(site)
    assert (site.server.status, site.server.finals, site.finished) == (TaskStatus.COMPLETED, 1, 1)


def test_an_abort_on_the_way_back_to_the_queue_is_obeyed(site: SimulatedSite) -> None:
    """The daemon has decided, and the server goes away before the task is in its queue."""
    job, executor = running(site)
    site.end_job(job, JobState.NODE_FAIL, TerminationCause.NODE_FAILED, kill=True)
    site.faults.errors["tasks.enqueue"] = ServerUnreachableError("no answer")
    look(site, passes=3)
    site.faults.errors.clear()
    report = executor.run.exit_report()
    assert report is not None
    assert (report.status, report.posted) == ("again", False)
    site.server.abort()
    look(site, passes=3)
    assert (site.server.status, site.server.added) == (TaskStatus.STOPPED, None)
    assert site.server.reason.startswith("aborted by its user")


def test_what_an_agent_of_another_kind_runs_is_left_to_it(site: SimulatedSite) -> None:
    """Its user resets and enqueues it while our job runs it on a node that cannot be reached."""
    job, executor = running(site)
    site.end_job(job, JobState.NODE_FAIL, TerminationCause.NODE_FAILED, unreachable=True)
    site.reset_task()
    site.enqueue()
    site.start_other_agent()
    look(site, passes=6)
    executor.finish()
    assert (site.server.status, site.server.added) == (TaskStatus.IN_PROGRESS, None)
    assert site.most_processes == 1


def test_a_task_that_went_back_unnoticed_is_left_to_the_agent_that_took_it(
    site: SimulatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's answer to the daemon was lost, and an agent of another kind, which leaves our stamp alone, took the
    task before the daemon looked again."""
    look(site)
    [job] = site.cluster.startable_jobs()
    executor = site.start_job(job)
    for _ in range(2):
        executor.step()  # it takes the task and shows it as running …
    site.end_job(job, JobState.TIMEOUT, TerminationCause.TIME_LIMIT, kill=True)  # … and its process never began
    queues = site.server.client.queues
    enqueue_at_head = queues.enqueue_at_head

    def unanswered(queue: QueueId, task: TaskId, reason: str) -> None:
        enqueue_at_head(queue, task, reason)
        monkeypatch.undo()
        raise ServerUnreachableError("no answer", uncertain=True)

    monkeypatch.setattr(queues, "enqueue_at_head", unanswered)
    while not site.server.is_in_queue:
        look(site, passes=1)
    site.start_other_agent()
    look(site, passes=4)
    assert site.server.status is TaskStatus.IN_PROGRESS
    assert not site.server.is_in_queue


def test_a_run_on_a_node_that_is_taken_for_dead_has_ended_before_the_next_one_begins(site: SimulatedSite) -> None:
    """Slurm starts the next job at once."""
    job, before = running(site)
    site.end_job(job, JobState.NODE_FAIL, TerminationCause.NODE_FAILED, unreachable=True)
    look(site, passes=1)
    _, after = running(site)
    assert (before.has_process, after.has_process, site.most_processes) == (False, True, 1)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.PENDING])
def test_a_list_that_lacks_the_task_loses_it_not(site: SimulatedSite, state: JobState) -> None:
    job, executor = running(site)
    if state is JobState.PENDING:
        site.requeue(job, kill=True)
    else:
        executor.exit(137)
    for _ in range(4):
        site.faults.omit_rows = True
        look(site, passes=1)
    expected = TaskStatus.IN_PROGRESS if state is JobState.PENDING else TaskStatus.FAILED
    assert site.server.status is expected
    assert bool(site.cluster.pending_jobs()) is (state is JobState.PENDING)


def test_an_abort_of_what_another_agent_runs_is_left_to_that_agent(site: SimulatedSite) -> None:
    site.start_other_agent()
    site.server.abort()
    look(site)
    assert site.server.seen.abort_requested
    site.step_other_agent(ends=False)
    look(site)
    assert (site.server.status, site.other_agent_runs) == (TaskStatus.STOPPED, False)


def test_a_run_that_ended_before_a_reset_is_not_the_end_of_the_next_run(site: SimulatedSite) -> None:
    """It writes its exit report only when the task is in its queue again."""
    _, before = running(site)
    before.step()
    site.reset_task()
    site.enqueue()
    before.finish()
    assert (site.server.status, site.finished) == (TaskStatus.QUEUED, 0)
    look(site)
    _, after = running(site)
    after.finish()
    assert (site.server.status, site.server.finals, site.finished) == (TaskStatus.COMPLETED, 1, 1)


def test_a_task_taken_off_the_queue_that_it_was_put_back_to_is_stopped(site: SimulatedSite) -> None:
    """The server then gives it the status from before, and no agent runs it."""
    job, _ = running(site)
    site.end_job(job, JobState.NODE_FAIL, TerminationCause.NODE_FAILED, kill=True)
    look(site, passes=6)
    assert site.server.is_in_queue
    site.server.dequeue()
    assert site.server.status is TaskStatus.IN_PROGRESS
    look(site, passes=1)
    assert site.server.status is TaskStatus.IN_PROGRESS  # an agent of another kind may have taken it
    look(site, passes=3)
    assert (site.server.status, site.server.added) == (TaskStatus.STOPPED, None)
    assert site.server.reason == "taken off its queue, to which it had been put back, by its user"
    look(site)
    assert not site.cluster.pending_jobs()


def test_a_task_that_was_put_back_is_left_to_the_agent_of_another_kind_that_took_it(site: SimulatedSite) -> None:
    job, _ = running(site)
    site.end_job(job, JobState.NODE_FAIL, TerminationCause.NODE_FAILED, kill=True)
    look(site, passes=6)
    site.start_other_agent()
    look(site, passes=9)
    assert site.server.status is TaskStatus.IN_PROGRESS


def test_a_process_of_the_start_before_last_has_ended_before_the_next_one_begins(site: SimulatedSite) -> None:
    """Slurm takes two nodes for dead, one after the other; the second start claimed the task and started nothing."""
    job, first = running(site)
    starts = []
    for _ in range(2):
        site.requeue(job, unreachable=True)
        starts.append(site.start_job(job))
        starts[-1].step()
    while not starts[-1].has_process:
        starts[-1].step()
    assert (first.has_process, site.most_processes) == (False, 1)
