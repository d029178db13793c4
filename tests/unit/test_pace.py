"""A daemon whose jobs only wait asks the scheduler seldom, and notices at once what changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_site import SimulatedSite

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, QueueId, TaskId
from hpc_agent.domain.job import JobState
from hpc_agent.errors import ServerUnreachableError
from hpc_agent.runs.job_news import JobNews

QUEUE, OTHER = QueueId("q"), QueueId("other")
ATTEMPT = Attempt(TaskId("t"), AttemptId("0123abcd"))


class PacedSite(SimulatedSite):
    def is_due(self) -> bool:
        return self.daemon._pace.is_due()

    def passes_until_quiet(self) -> int:
        """Passes until the next one is not due at once."""
        count = 0
        while self.is_due():
            self.run_pass()
            self.advance(1)
            count += 1
            assert count < 10, "it never becomes quiet"
        return count


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PacedSite]:
    site = PacedSite(tmp_path)
    site.enqueue()
    yield site
    site.close()


def test_a_job_that_waits_is_looked_at_seldom(site: PacedSite) -> None:
    # Submitted; listed, which is noted; nothing more to do.
    assert site.passes_until_quiet() == 3
    site.clock.advance(28)
    assert not site.is_due()
    site.clock.advance(2)
    assert site.is_due()


def test_an_empty_queue_is_quiet_until_a_task_comes(site: PacedSite) -> None:
    site.server.dequeue()
    site.passes_until_quiet()
    site.enqueue()
    assert site.is_due()


def test_a_task_that_leaves_its_queue_is_seen_at_once(site: PacedSite) -> None:
    site.passes_until_quiet()
    site.server.dequeue()
    assert site.is_due()
    site.run_pass()
    assert site.cluster.cancelled


def test_a_change_that_an_answer_was_lost_of_is_seen_the_next_time(site: PacedSite) -> None:
    site.passes_until_quiet()
    site.server.dequeue()
    site.faults.lose_in = 0
    with pytest.raises(ServerUnreachableError):
        site.is_due()
    assert site.is_due()


def test_a_running_task_is_quiet_and_its_end_is_news(site: PacedSite) -> None:
    site.passes_until_quiet()
    job = next(iter(site.cluster.jobs.values()))
    executor = site.start_job(job)
    while not site.processes_started:
        executor.step()
    assert site.is_due(), "its entry left the queue"
    site.passes_until_quiet()
    attempt = next(site.runs.attempts(site.server.task)).attempt
    JobNews(site.runs.path).publish(site.server.queue, attempt)
    assert site.is_due()
    executor.finish()
    site.cluster.end(job, JobState.COMPLETED)
    site.run_pass()
    assert site.is_due(), "its end is not recorded yet"


def test_news_are_taken_once(tmp_path: Path) -> None:
    JobNews(tmp_path).publish(QUEUE, ATTEMPT)
    JobNews(tmp_path).publish(QUEUE, ATTEMPT)
    assert JobNews(tmp_path).take([OTHER, QUEUE])
    assert not JobNews(tmp_path).take([OTHER, QUEUE])


def test_news_of_queues_of_another_daemon_stay(tmp_path: Path) -> None:
    JobNews(tmp_path).publish(OTHER, ATTEMPT)
    assert not JobNews(tmp_path).take([QUEUE])
    assert JobNews(tmp_path).take([OTHER])
