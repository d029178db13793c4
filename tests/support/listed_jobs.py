"""A batch system that is a list of jobs: for what only reads the list, and says what it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, LiveJob, SubmitResult
from hpc_agent.domain.resources import Resources
from hpc_agent.schedulers.base import JobOrigin, SubmitRequest

SMALL = Resources(cpus=1, memory_mb=512, time_minutes=5)


@dataclass
class BatchSystem:
    """A list of jobs, and what was asked of it."""

    name: str = "slurm"
    live: list[LiveJob] = field(default_factory=list)
    known: dict[JobId, JobRecord] = field(default_factory=dict)
    asked: list[set[JobId]] = field(default_factory=list)
    cancelled: list[JobId] = field(default_factory=list)

    def cluster(self) -> str:
        return "c"

    def about(self) -> JobOrigin:
        return JobOrigin("a list")

    def submit(self, request: SubmitRequest) -> SubmitResult:
        return Accepted(JobId("900"))

    def live_jobs(self) -> Sequence[LiveJob]:
        return self.live

    def room(self) -> Capacity:
        return Capacity()

    def find(self, job_name: str, since: datetime) -> JobId | None:
        return None

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        self.asked.append(set(jobs))
        return {job: self.known[job] for job in jobs if job in self.known}

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        self.cancelled += jobs

    def release(self, jobs: Sequence[JobId]) -> None:
        raise AssertionError("no job is held")
