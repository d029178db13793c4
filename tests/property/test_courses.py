"""Single courses of events, told from the daemon's side: each was once answered wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretended_site import Executor, Job, PretendedSite

from hpc_agent.domain.ending import Cause
from hpc_agent.domain.job import JobState
from hpc_agent.domain.status import TaskStatus


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
    while site.server.there.status is TaskStatus.QUEUED:
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
    for _ in range(20):
        look(site)
        for other in site.waiting():
            other.held = "DependencyNeverSatisfied"
    assert site.server.there.status is TaskStatus.FAILED
    assert not site.waiting()
