"""Jobs of a real Slurm under names of every kind: none stops, hides or makes another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from captured_slurm import HOSTILE_NAMES
from slurm_site import SlurmSite, recorded
from waiting import wait_until

from hpc_agent.domain.job import JobState

pytestmark = pytest.mark.slurm


@pytest.fixture
def site(slurm_cluster: Any, tmp_path: Path) -> Iterator[SlurmSite]:
    site = SlurmSite(slurm_cluster, tmp_path)
    yield site
    site.scheduler.cancel(site.jobs)


def test_no_name_stops_or_hides_or_makes_a_job(site: SlurmSite) -> None:
    jobs = {site.submit("true", "--hold", name=name): name for name in HOSTILE_NAMES.values()}
    ours = site.submit("true", "--hold", name="ours")
    listed = {job.id: job for job in site.scheduler.live_jobs()}
    assert set(listed) >= {*jobs, ours}
    assert listed[ours].name == "ours"
    assert all(listed[job].state is JobState.PENDING for job in jobs)
    assert all(listed[job].name == name.encode()[:256].decode().strip() for job, name in jobs.items())
    assert "1" not in set(listed) - {*jobs, ours}
    assert site.scheduler.find("ours", site.before) == ours
    assert site.scheduler.find("unheard_of", site.before) is None


def test_a_job_that_has_ended_is_found_by_a_name_with_commas(site: SlurmSite) -> None:
    job = site.submit("true", name="lr=0.1,bs=2")
    site.record(job)
    assert site.scheduler.find("lr=0.1,bs=2", site.before) == job


def test_jobs_of_any_name_have_their_records(site: SlurmSite) -> None:
    """One query for all of them: the exit code of each is its own."""
    jobs = {site.submit(f"exit {code}", name=name): code for code, name in enumerate(HOSTILE_NAMES.values())}
    for job, code in jobs.items():
        state = JobState.FAILED if code else JobState.COMPLETED
        record = recorded(site.scheduler, job, site.before)
        assert (record.state, record.exit_code) == (state, code)

    def are_named() -> bool:
        """Accounting learns a job's name some seconds after the rest."""
        records = site.scheduler.records(dict.fromkeys(jobs, site.before))
        assert {job: record.exit_code for job, record in records.items()} == jobs
        return all(record.name for record in records.values())

    wait_until("all records to have a name", are_named)


def test_a_job_that_renames_itself_hides_no_other(site: SlurmSite) -> None:
    renamed = site.submit("sleep 300", name="renamed")
    other = site.submit("sleep 300", name="other")
    site.wait_for_start(renamed)
    site.wait_for_start(other)
    forged = f"x\n{other}".ljust(34) + "COMPLETED".ljust(24) + "0"
    for name in ("a\nb", f"a\n{other}|{other}|COMPLETED|0:0|", forged):
        site.cluster.run("scontrol", "update", f"JobId={renamed}", f"JobName={name}")
        listed = {job.id: job for job in site.scheduler.live_jobs()}
        assert listed[renamed].name == name
        assert listed[other].state is JobState.RUNNING
        found = site.scheduler.records({renamed: site.before, other: site.before})
        assert not any(record.state.is_final for record in found.values())
