"""Single courses of events, told from the daemon's side: each was once answered wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretended_site import Executor, Job, PretendedSite

from hpc_agent.domain.ending import Cause
from hpc_agent.domain.job import JobState
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import ServerUnreachableError


def look(site: PretendedSite, passes: int = 2, seconds: float = 30) -> None:
    """Accounting knows all by then."""
    for _ in range(passes):
        site.clock.seconds += seconds
        for job in site.cluster.jobs.values():
            job.recorded = job.record is not None
        site.look()


def running(site: PretendedSite) -> tuple[Job, Executor]:
    """The next job of the task, whose process runs."""
    look(site)
    [job] = site.startable()
    site.start_job(job)
    executor = site.living()[-1]
    while not executor.process:
        executor.step()
    return job, executor


@pytest.fixture
def site(tmp_path: Path) -> PretendedSite:
    site = PretendedSite(tmp_path, on_time_limit="requeue", max_restarts=1)
    site.server.enqueue(by_person=True)
    return site


def test_a_requeue_that_is_not_permitted_costs_one_restart_and_not_two(site: PretendedSite) -> None:
    """The executor counts it, asks for it in vain, and leaves it to the daemon."""
    for _ in range(2):
        job, executor = running(site)
        executor.run.add_restart(0)
        site.end_job(job, JobState.FAILED, Cause.TIME_LIMIT, kill=False, zombie=False)
        look(site, passes=6)
    assert site.server.there.status is TaskStatus.FAILED
    assert site.server.there.reason.endswith("it was restarted once before (max_restarts)")


def test_a_job_that_always_ends_between_claim_and_start_is_given_up(site: PretendedSite) -> None:
    ended = 0
    for _ in range(4):
        look(site)
        for job in site.startable():
            site.start_job(job)
            site.living()[-1].step()  # it takes the task …
            site.end_job(job, JobState.FAILED, Cause.UNKNOWN, kill=True, zombie=False)
            ended += 1
        look(site, passes=4)
    assert ended == 2
    assert site.server.there.status is TaskStatus.FAILED
    assert "ended before it started; it was restarted once before" in site.server.there.reason


def test_a_daemon_that_died_while_it_refused_a_job_that_never_starts_leaves_no_task_behind(site: PretendedSite) -> None:
    look(site)
    [job] = site.waiting()
    job.held = "DependencyNeverSatisfied"
    site.fate.after = True
    for calls in range(12):
        site.fate.kill_in = calls
        site.look()
        if site.server.entry is None:
            break
    site.fate.kill_in = None
    assert (site.server.entry, site.server.there.status) == (None, TaskStatus.QUEUED)
    job.held = "JobHeldUser"  # somebody mended it halfway
    for _ in range(20):
        look(site)
        for other in site.waiting():
            other.held = other.held or "DependencyNeverSatisfied"
    assert site.server.there.status is TaskStatus.FAILED
    assert not site.waiting()


def test_a_script_that_completed_its_own_task_goes_on(site: PretendedSite) -> None:
    job, executor = running(site)
    site.server.become(TaskStatus.COMPLETED, "by its script")
    look(site, passes=5, seconds=70)
    assert (job.record, site.cluster.cut_short) == (None, [])
    while not executor.over:
        executor.step()
    look(site)
    assert (site.server.there.status, site.server.there.finals, site.finished) == (TaskStatus.COMPLETED, 1, 1)


def test_an_abort_on_the_way_back_to_the_queue_is_obeyed(site: PretendedSite) -> None:
    """The daemon has decided, and the server goes away before the task is in its queue."""
    job, executor = running(site)
    site.end_job(job, JobState.NODE_FAIL, Cause.NODE_FAILED, kill=True, zombie=False)
    holding, site.server.queues.holding = site.server.queues.holding, _away
    look(site, passes=3)
    site.server.queues.holding = holding
    report = executor.run.exit_report()
    assert report is not None
    assert (report.status, report.posted) == ("again", False)
    site.server.there.message = "stopping"
    look(site, passes=3)
    assert (site.server.there.status, site.server.entry) == (TaskStatus.STOPPED, None)
    assert site.server.there.reason.startswith("aborted by its user")


def _away(_task: object) -> None:
    raise ServerUnreachableError("no answer")


def test_what_an_agent_of_another_kind_runs_is_left_to_it(site: PretendedSite) -> None:
    """Its user resets and enqueues it while our job runs it on a node that nobody can reach."""
    job, executor = running(site)
    site.end_job(job, JobState.NODE_FAIL, Cause.NODE_FAILED, kill=False, zombie=True)
    site.its_user_resets_it()
    site.server.enqueue(by_person=True)
    site.another_agent_takes_it()
    look(site, passes=6)
    while not executor.over:
        executor.step()
    assert (site.server.there.status, site.server.entry) == (TaskStatus.IN_PROGRESS, None)
    assert site.together == 1


def test_a_task_that_went_back_unnoticed_is_left_to_the_agent_that_took_it(site: PretendedSite) -> None:
    """The server's answer to the daemon was lost, and an agent of another kind, which leaves our stamp alone, took the
    task before the daemon looked again."""
    look(site)
    [job] = site.startable()
    site.start_job(job)
    for _ in range(2):
        site.living()[-1].step()  # it takes the task and shows it as running …
    site.end_job(job, JobState.TIMEOUT, Cause.TIME_LIMIT, kill=True, zombie=False)  # … and its process never began
    put_first = site.server.queues.put_first

    def unanswered(*arguments: object) -> None:
        put_first(*arguments)
        site.server.queues.put_first = put_first
        raise ServerUnreachableError("no answer", uncertain=True)

    site.server.queues.put_first = unanswered
    while site.server.entry is None:
        look(site, passes=1)
    site.another_agent_takes_it()
    look(site, passes=4)
    assert (site.server.there.status, site.server.entry) == (TaskStatus.IN_PROGRESS, None)


def test_a_run_on_a_node_that_is_taken_for_dead_has_ended_before_the_next_one_begins(site: PretendedSite) -> None:
    """Slurm starts the next job at once."""
    job, before = running(site)
    site.end_job(job, JobState.NODE_FAIL, Cause.NODE_FAILED, kill=False, zombie=True)
    look(site, passes=1)
    _, after = running(site)
    assert (before.process, after.process, site.together) == (False, True, 1)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.PENDING])
def test_a_list_that_lacks_the_task_loses_it_not(site: PretendedSite, state: JobState) -> None:
    job, executor = running(site)
    if state is JobState.PENDING:
        site.requeue(job, kill=True, zombie=False)
    else:
        executor.die()
    for _ in range(4):
        site.server.leaves_out = True
        look(site, passes=1)
    expected = TaskStatus.IN_PROGRESS if state is JobState.PENDING else TaskStatus.FAILED
    assert site.server.there.status is expected
    assert bool(site.waiting()) is (state is JobState.PENDING)
