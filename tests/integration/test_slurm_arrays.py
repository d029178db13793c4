"""Job arrays on a real Slurm: each element is a job like any other one, by its own id and name."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_site import SlurmSite
from waiting import equals, wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, JobState
from hpc_agent.domain.resources import Resources
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.records import newest
from hpc_agent.schedulers.slurm.array_driver import SlurmArrays
from hpc_agent.schedulers.slurm.array_folders import ArrayFolders
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.schedulers.slurm.waiting_elements import of_whole_arrays

pytestmark = pytest.mark.slurm


class ArraySite(SlurmSite):
    def __init__(self, cluster: Any, folder: Path) -> None:
        super().__init__(cluster, folder)
        self.settings = SlurmSettings(array_size=100, requests_per_second=0)
        self.arrays = self.other_process()
        self.names: list[str] = []

    def other_process(self) -> SlurmArrays:
        slurm = SlurmScheduler(self.settings, environ=self.cluster.env)
        return SlurmArrays(slurm, ArrayFolders(self.folder / ".arrays"), self.settings, SYSTEM)

    def submit_array(self, *bodies: str, held: bool = False) -> list[JobId]:
        requests = []
        for body in bodies:
            name = f"job_{secrets.token_hex(4)}"
            folder = self.folder / f"run of {name}"
            folder.mkdir()
            script = folder / "job.sbatch"
            hold = "#SBATCH --hold\n" if held else ""
            script.write_text(f"#!/bin/bash\n#SBATCH --job-name={name}\n#SBATCH --requeue\n{hold}{body}\n")
            script.chmod(0o700)
            requests.append(SubmitRequest(script, name, folder, folder / "job.out", Resources()))
            self.names.append(name)
        answers = self.arrays.submit_array(requests)
        found = [answer.job for answer in answers if isinstance(answer, Accepted)]
        assert len(found) == len(bodies), answers
        self.jobs += found
        return found

    def output(self, index: int) -> str:
        path = self.folder / f"run of {self.names[index]}" / "job.out"
        return path.read_text() if path.exists() else ""

    def records_of(self, jobs: list[JobId]) -> dict[JobId, JobRecord]:
        """Final ones, once there is one of each."""

        def look() -> dict[JobId, JobRecord]:
            return dict(self.arrays.records(dict.fromkeys(jobs, self.before)))

        def all_final(found: dict[JobId, JobRecord]) -> bool:
            return found.keys() == set(jobs) and all(record.state.is_final for record in found.values())

        return wait_until(f"the records of {jobs}", look, all_final)


@pytest.fixture
def site(slurm_cluster: Any, tmp_path: Path) -> Iterator[ArraySite]:
    site = ArraySite(slurm_cluster, tmp_path)
    yield site
    site.scheduler.cancel(site.jobs)


def test_each_element_is_listed_found_and_cancelled_by_itself(site: ArraySite) -> None:
    jobs = site.submit_array("true", "true", "true", held=True)
    for process in (site.arrays, site.other_process()):
        listed = {job.id: job.name for job in process.live_jobs()}
        assert [listed.get(job) for job in jobs] == site.names
        assert [process.find(name, site.before) for name in site.names] == jobs
    site.arrays.cancel([jobs[1]])
    left = {job.id for job in site.arrays.live_jobs()}
    assert [job in left for job in jobs] == [True, False, True]
    assert site.records_of([jobs[1]])[jobs[1]].state is JobState.CANCELLED


def test_an_array_that_is_cancelled_as_a_whole_leaves_a_record_for_each(site: ArraySite) -> None:
    jobs = site.submit_array("true", "true", "true", held=True)
    site.cluster.run("scancel", jobs[0].partition("_")[0])
    records = site.records_of(jobs)
    assert {record.state for record in records.values()} == {JobState.CANCELLED}
    # The controller forgets in a while: accounting has them too.
    known = site.scheduler._sacct(site.before, jobs=[JobId(jobs[0].partition("_")[0])]).records
    found = newest([*of_whole_arrays(known, jobs), *known], dict.fromkeys(jobs, site.before))
    assert {job: record.state for job, record in found.items()} == dict.fromkeys(jobs, JobState.CANCELLED)


def test_each_element_runs_its_own_script_in_its_own_folder(site: ArraySite) -> None:
    say = 'echo "$PWD ${SLURM_ARRAY_TASK_ID-no array} $HPC_AGENT_SLURM_JOB_ID"'
    jobs = site.submit_array(f"{say}; exit 3", say)
    records = site.records_of(jobs)
    assert [records[job].exit_code for job in jobs] == [3, 0]
    assert [records[job].name for job in jobs] == site.names
    for index, job in enumerate(jobs):
        assert site.output(index) == f"{site.folder}/run of {site.names[index]} no array {job}\n"


def test_one_element_is_requeued_and_the_others_go_on(site: ArraySite) -> None:
    jobs = site.submit_array(*["echo start ${SLURM_RESTART_COUNT:-0}; sleep 300"] * 2)
    wait_until("both to run", lambda: [site.output(0), site.output(1)], equals(["start 0\n"] * 2))
    site.cluster.run("scontrol", "requeue", jobs[0])
    # Between them slurmstepd says that the first start was requeued.
    wait_until("the second start", lambda: site.output(0).endswith("start 1\n"))
    assert site.output(1) == "start 0\n"
    listed = {job.id: (job.name, job.restarts) for job in site.arrays.live_jobs()}
    assert [listed[job] for job in jobs] == [(site.names[0], 1), (site.names[1], 0)]
