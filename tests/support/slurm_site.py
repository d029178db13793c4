"""The tests' Slurm with a scheduler on it: submit, look, wait."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from waiting import equals, wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, LiveJob
from hpc_agent.domain.resources import Resources
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.settings import SlurmSettings


class SlurmSite:
    """The tests' Slurm and a scheduler on it; cancels what it submitted."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.scheduler = SlurmScheduler(SlurmSettings(), environ=cluster.env)
        self.before = SYSTEM.now()
        self.jobs: list[JobId] = []

    def request(self, body: str, *directives: str, name: str = "job") -> SubmitRequest:
        script = self.folder / f"{len(self.jobs)}.sh"
        script.write_text("\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in directives), body, ""]))
        return SubmitRequest(script, name, self.folder, self.folder / "job.out", Resources())

    def submit(self, body: str, *directives: str, name: str = "job") -> JobId:
        answer = self.scheduler.submit(self.request(body, *directives, name=name))
        assert isinstance(answer, Accepted), answer
        self.jobs.append(answer.job)
        return answer.job

    def live(self, job: JobId) -> LiveJob | None:
        return next((live for live in self.scheduler.live_jobs() if live.id == job), None)

    def state(self, job: JobId) -> JobState | None:
        live = self.live(job)
        return live.state if live else None

    def wait_for_start(self, job: JobId) -> None:
        wait_until(f"job {job} to run", lambda: self.state(job), equals(JobState.RUNNING))

    def record(self, job: JobId) -> JobRecord:
        return recorded(self.scheduler, job, self.before)


def recorded(scheduler: SlurmScheduler, job: JobId, since: datetime) -> JobRecord:
    """Its final record, once there is one."""

    def look() -> JobRecord | None:
        return scheduler.records({job: since}).get(job)

    record = wait_until(f"the record of job {job}", look, lambda seen: seen is not None and seen.state.is_final)
    assert record is not None
    return record
