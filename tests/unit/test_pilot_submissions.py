"""Tasks of a queue with pilots that fit into none of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from simulated_pilots import QUEUE, PilotSite

from hpc_agent.domain.pilot_slots import pilot_name

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


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (2, 2), (100, 3)])
def test_they_become_jobs_of_their_own_up_to_the_limit_of_all(site: PilotSite, limit: int, expected: int) -> None:
    hpc = msgspec.structs.replace(site.settings.hpc, max_jobs=limit)
    site.settings = msgspec.structs.replace(site.settings, hpc=hpc)
    site.restart_daemon()
    for number in range(3):
        task = site.server("tasks.create", name=f"large {number}", type="training", hyperparams=LARGE)["id"]
        site.server("tasks.enqueue", task=task, queue=site.server.queue)
    for _ in range(5):
        site.run_pass()
        site.clock.advance(60)
    assert own_jobs(site) == expected
    assert not site.board.numbers()
