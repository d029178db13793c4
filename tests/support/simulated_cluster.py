"""A scheduler in memory, a ``schedulers.base.Scheduler``, whose jobs start and end when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import TypeVar

from manual_clock import ManualClock
from simulated_faults import Faults

from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, LiveJob, OutcomeUnknown, SubmitResult
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers.base import CLOCK_SKEW, JobOrigin, SubmitRequest
from hpc_agent.schedulers.slurm.wait_reasons import meaning

T = TypeVar("T")

OTHER_JOBS = (
    LiveJob(JobId("9001"), "train", JobState.PENDING, "PENDING"),
    LiveJob(JobId("9002"), f"clearml_task_{'b' * 32}_01234567", JobState.PENDING, "PENDING"),
)
"""Jobs that no daemon here submitted, one of them with a name like those of our jobs."""


@dataclass
class SimulatedJob:
    id: JobId
    name: str
    submitted: datetime
    state: JobState = JobState.PENDING
    restarts: int = 0
    held: str = ""
    """Why it does not start, in Slurm's words, until that is changed; empty for one that waits for its turn."""
    record: JobRecord | None = None
    """How it ended."""
    recorded: bool = False
    """Whether accounting has the record already."""


class SimulatedCluster:
    """Jobs in order of submission. ``task_status`` tells what the task is at the moment a job is cancelled."""

    name = "slurm"

    def __init__(self, faults: Faults, clock: ManualClock, task_status: Callable[[], TaskStatus]) -> None:
        self._faults = faults
        self._clock = clock
        self._task_status = task_status
        self._ids = count(1)
        self.jobs: dict[JobId, SimulatedJob] = {}
        self.cancelled: list[JobId] = []
        self.cancelled_while: list[TaskStatus] = []
        """What the task was each time that a running job was cancelled."""
        self.accounting_answers = True
        self.other_jobs: Sequence[LiveJob] = OTHER_JOBS
        """Of the same user."""

    def _call(self, name: str, carry_out: Callable[[], T]) -> T:
        return self._faults.call(name, carry_out, lambda: SchedulerUnavailableError(f"{name}: no answer"))

    # ------------------------------------------------ schedulers.base.Scheduler

    def about(self) -> JobOrigin:
        return JobOrigin("a simulated scheduler")

    def cluster(self) -> str:
        return "simulated"

    def room(self) -> Capacity:
        return Capacity()

    def submit(self, request: SubmitRequest) -> SubmitResult:
        try:
            return self._call("sbatch", lambda: self._accept(request.job_name))
        except SchedulerUnavailableError as error:
            return OutcomeUnknown(str(error))

    def _accept(self, name: str) -> SubmitResult:
        job = SimulatedJob(JobId(str(next(self._ids))), name, self._clock.now())
        self.jobs[job.id] = job
        return Accepted(job.id)

    def live_jobs(self) -> Sequence[LiveJob]:
        return self._call("squeue", lambda: [*self.other_jobs, *(_live(job) for job in self._not_ended())])

    def find(self, job_name: str, since: datetime) -> JobId | None:
        def newest() -> JobId | None:
            jobs = reversed(self.jobs.values())
            return next((job.id for job in jobs if job.name == job_name and _is_since(job, since)), None)

        return self._call("squeue", newest)

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        if not self.accounting_answers:
            raise SchedulerUnavailableError("sacct: Unable to connect to slurmdbd")

        def known() -> dict[JobId, JobRecord]:
            ended = {job.id: job for job in self.jobs.values() if job.recorded}
            meant = [ended[id] for id, since in jobs.items() if id in ended and _is_since(ended[id], since)]
            return {job.id: job.record for job in meant if job.record}

        return self._call("sacct", known)

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        self.cancelled += jobs
        live = {job.id: job for job in self._not_ended()}
        meant = [live[id] for id in jobs if id in live]
        if not only_pending:
            running = [job for job in meant if job.state is JobState.RUNNING]
            self.cancelled_while += [self._task_status() for _ in running]

        def end() -> None:
            for job in meant:
                if job.state is JobState.PENDING or not only_pending:
                    self.end(job, JobState.CANCELLED)

        self._call("scancel", end)

    def release(self, jobs: Sequence[JobId]) -> None:
        """Slurm tries again, and cannot launch them again."""
        for id in jobs:
            self.jobs[id].restarts += 1

    # ------------------------------------------------ what a test makes of its jobs

    def end(self, job: SimulatedJob, state: JobState, code: int = 0) -> None:
        job.record = JobRecord(
            job.id,
            state,
            state.value,
            name=job.name,
            exit_code=code,
            nodes="n1",
            submitted=job.submitted,
            started=job.submitted,
            ended=self._clock.now(),
        )

    def update_accounting(self) -> None:
        """Accounting has the records of all jobs that ended."""
        for job in self.jobs.values():
            job.recorded = job.record is not None

    def _not_ended(self) -> list[SimulatedJob]:
        return [job for job in self.jobs.values() if job.record is None]

    def pending_jobs(self) -> list[SimulatedJob]:
        return [job for job in self._not_ended() if job.state is JobState.PENDING]

    def startable_jobs(self) -> list[SimulatedJob]:
        return [job for job in self.pending_jobs() if not job.held]

    def running_jobs(self) -> list[SimulatedJob]:
        return [job for job in self._not_ended() if job.state is JobState.RUNNING]


def _is_since(job: SimulatedJob, since: datetime) -> bool:
    """Whether it is not an older job, of the same name or id."""
    return job.submitted >= since - CLOCK_SKEW


def _live(job: SimulatedJob) -> LiveJob:
    nodes, reason = ("n1", "") if job.state is JobState.RUNNING else ("", job.held or "Priority")
    meant = meaning(reason, job.id)
    return LiveJob(
        job.id, job.name, job.state, job.state.value, reason, nodes=nodes, restarts=job.restarts, waits=meant
    )
