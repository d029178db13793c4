"""A queue that daemons of other clusters serve too: what this cluster cannot run stays for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_site import SimulatedSite

from hpc_agent.daemon.waiting_tasks import LEFT_S
from hpc_agent.domain.job import Refused, SubmitResult
from hpc_agent.domain.status import TaskStatus
from hpc_agent.schedulers.base import SubmitRequest


@pytest.fixture(params=[True, False])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimulatedSite]:
    site = SimulatedSite(tmp_path, shared=request.param)
    yield site
    site.close()


def refuse(_request: SubmitRequest) -> SubmitResult:
    return Refused("invalid partition specified: gpu")


def test_a_refused_task_stays_queued_where_the_queue_is_shared(
    site: SimulatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_shared = site.settings.hpc.queue("queue").shared
    submit = site.cluster.submit
    monkeypatch.setattr(site.cluster, "submit", refuse)
    site.enqueue()
    site.run_pass()
    reason = "the scheduler refused the job: invalid partition specified: gpu"
    if not is_shared:
        assert (site.server.status, site.server.reason) == (TaskStatus.FAILED, reason)
        return
    assert site.server.is_in_queue
    assert site.server.message == f"{site.cluster.cluster()}: left to other clusters of its queue: {reason}"
    # It is tried again later: the cluster may have got what the task needs.
    monkeypatch.setattr(site.cluster, "submit", submit)
    site.advance(LEFT_S - 1)
    site.run_pass()
    assert not site.cluster.jobs
    site.advance(2)
    site.run_pass()
    assert len(site.cluster.jobs) == 1
