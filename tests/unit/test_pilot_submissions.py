"""Tasks of a queue with pilots that fit into none of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from simulated_pilots import QUEUE, PilotSite

from hpc_agent.daemon.login_staging import StagingBackend
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.job import JobState
from hpc_agent.domain.pilot_slots import pilot_name
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.task import Task
from hpc_agent.sources.layout import Origin, StagedSource
from hpc_agent.staging import StagedTask

LARGE = {"properties": {"num_cpus": {"section": "properties", "name": "num_cpus", "value": "2"}}}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PilotSite]:
    site = PilotSite(tmp_path)
    site.server.dequeue()
    yield site
    site.close()


def own_jobs(site: PilotSite) -> int:
    """Of tasks: jobs that are not pilots."""
    return sum(job.name != pilot_name(QUEUE) for job in site.slurm.jobs.values())


def set_most_jobs(site: PilotSite, count: int) -> None:
    hpc = msgspec.structs.replace(site.settings.hpc, max_jobs=count)
    site.settings = msgspec.structs.replace(site.settings, hpc=hpc)
    site.restart_daemon()


def enqueue_large(site: PilotSite, count: int) -> None:
    for number in range(count):
        task = site.server("tasks.create", name=f"large {number}", type="training", hyperparams=LARGE)["id"]
        site.server("tasks.enqueue", task=task, queue=site.server.queue)


def run_passes(site: PilotSite, count: int, *, seconds: float = 60) -> None:
    for _ in range(count):
        site.run_pass()
        site.clock.advance(seconds)


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (2, 2), (100, 3)])
def test_they_become_jobs_of_their_own_up_to_the_limit_of_all(site: PilotSite, limit: int, expected: int) -> None:
    set_most_jobs(site, limit)
    enqueue_large(site, 3)
    run_passes(site, 5)
    assert own_jobs(site) == expected
    assert not site.board.numbers()


def test_those_that_a_limit_holds_let_others_by(site: PilotSite) -> None:
    set_most_jobs(site, 1)
    enqueue_large(site, 60)
    site.server.enqueue()
    run_passes(site, 3)
    assert own_jobs(site) == 1
    assert len(site.board.numbers()) == 1


def change_queue(site: PilotSite, **changes: Any) -> None:
    hpc = site.settings.hpc
    queues = {**hpc.queues, QUEUE: msgspec.structs.replace(hpc.queue(QUEUE), **changes)}
    site.settings = msgspec.structs.replace(site.settings, hpc=msgspec.structs.replace(hpc, queues=queues))
    site.restart_daemon()


def test_they_count_against_the_limit_of_their_queue(site: PilotSite) -> None:
    change_queue(site, max_jobs=2)
    enqueue_large(site, 6)
    run_passes(site, 1)
    assert own_jobs(site) == 2


def test_no_pilots_are_asked_for_them(site: PilotSite) -> None:
    set_most_jobs(site, 4)
    change_queue(site, pilot=msgspec.structs.replace(site.settings.hpc.queue(QUEUE).pilot, max_pilots=3))
    enqueue_large(site, 12)
    site.server.enqueue()
    run_passes(site, 1)
    for _ in range(4):
        job = next(job for job in site.slurm.pending_jobs() if job.name != pilot_name(QUEUE))
        site.slurm.end(job, JobState.COMPLETED)
        run_passes(site, 2, seconds=1)
    assert [job.name for job in site.slurm.pending_jobs()].count(pilot_name(QUEUE)) == 1


class Stages:
    """Environments of these tasks are being built; all others are there."""

    def __init__(self, *building: TaskId) -> None:
        self._building = building

    def get(self, attempt: Attempt, task: Task, queue: Queue, *, wait: bool) -> StagedTask | None:
        return None if task.id in self._building else StagedTask(StagedSource(Origin.SCRIPT), None)


def test_those_whose_environments_are_being_built_let_others_by(site: PilotSite) -> None:
    building = [site.server.add(f"{number:032x}") for number in range(3)]
    site.server.enqueue()
    site.daemon._submissions._submitter._stages = cast(StagingBackend, Stages(*building))
    run_passes(site, 1)
    assert len(site.board.numbers()) == 1


def test_a_limit_of_the_scheduler_holds_them_and_no_others(site: PilotSite) -> None:
    site.slurm.limit = 0
    enqueue_large(site, 120)
    site.server.enqueue()
    run_passes(site, 4, seconds=1)
    assert len(site.slurm.sizes) == 2, "one of them, which stands for all, and a pilot"
    assert len(site.board.numbers()) == 1
    messages = site.server("tasks.get_all", name="large 0", only_fields=["status_message"])["tasks"]
    assert "QOSMaxSubmitJobPerUserLimit" in messages[0]["status_message"]
