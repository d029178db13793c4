"""A simulated Slurm that takes job arrays, and a site whose daemon submits many tasks by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from manual_clock import ManualClock
from simulated_cluster import SimulatedCluster, SimulatedJob
from simulated_faults import Faults
from simulated_site import SimulatedSite

from hpc_agent.domain.attempt import parse_job_name
from hpc_agent.domain.ids import JobId, TaskId
from hpc_agent.domain.job import Accepted, LimitReached, LiveJob, OutcomeUnknown, Refused, SubmitResult
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.base import Scheduler, SubmitRequest
from hpc_agent.schedulers.slurm.array_driver import SlurmArrays
from hpc_agent.schedulers.slurm.array_folders import ArrayFolders
from hpc_agent.schedulers.slurm.commands import ArrayRequest
from hpc_agent.schedulers.slurm.settings import SlurmSettings


class ArrayCluster(SimulatedCluster):
    """Counts a job for each element, as Slurm does."""

    largest = 1000
    limit = 1000
    refusal = ""

    def __init__(self, faults: Faults, clock: ManualClock, task_status: Callable[[], TaskStatus]) -> None:
        super().__init__(faults, clock, task_status)
        self.sizes: list[int] = []
        """Of each submission that arrived: its elements; 1 for a single job."""

    def max_array_size(self) -> int:
        return self.largest

    def submit(self, request: SubmitRequest) -> SubmitResult:
        try:
            return self._call("sbatch", lambda: self._take(request))
        except SchedulerUnavailableError as error:
            return OutcomeUnknown(str(error))

    def _take(self, request: SubmitRequest) -> SubmitResult:
        elements = request.elements if isinstance(request, ArrayRequest) else 1
        self.sizes.append(elements)
        if self.refusal:
            return Refused(self.refusal)
        if len(self._not_ended()) + elements > self.limit:
            return LimitReached("QOSMaxSubmitJobPerUserLimit")
        if not isinstance(request, ArrayRequest):
            return self._accept(request.job_name)
        array = JobId(str(next(self._ids)))
        for index in range(elements):
            job = SimulatedJob(JobId(f"{array}_{index}"), request.job_name, self._clock.now())
            self.jobs[job.id] = job
        return Accepted(array)


class ArraySite(SimulatedSite):
    slurm: ArrayCluster

    def __init__(self, folder: Path, tasks: int, *, size: int = 500) -> None:
        """``tasks``: in the queue from the beginning."""
        self.size = size
        super().__init__(folder)
        self.tasks = [self.server.task]
        for number in range(1, tasks):
            self.add(f"{number:032x}")
        if tasks:
            self.enqueue()

    def add(self, id: str) -> None:
        """Another task that asks for the same is enqueued."""
        self.tasks.append(self.server.add(id))

    def _new_cluster(self) -> SimulatedCluster:
        self.slurm = ArrayCluster(self.faults, self.clock, lambda: self.server.status)
        return self.slurm

    def _new_scheduler(self) -> Scheduler:
        # What another process would read.
        folders = ArrayFolders(self.runs.path / ".arrays")
        self.arrays = SlurmArrays(self.slurm, folders, SlurmSettings(array_size=self.size), self.clock)
        return self.arrays

    def own_name(self, job: SimulatedJob) -> str:
        return self.arrays.with_own_name(LiveJob(job.id, job.name, job.state, job.state.value)).name

    def run_dirs(self) -> list[RunDirectory]:
        return [directory for task in self.tasks for directory in self.runs.attempts(task)]

    def jobs_of(self) -> dict[str, list[JobId]]:
        """The jobs that are not ended, by the names that the daemon sees."""
        found: dict[str, list[JobId]] = {}
        for job in self.arrays.live_jobs():
            if job.id in self.slurm.jobs:
                found.setdefault(job.name, []).append(job.id)
        return found


class CompanionSite(ArraySite):
    """The task travels with others, whose jobs only wait: tests see those of the task itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 0)

    def enqueue(self) -> None:
        self.add(f"{len(self.tasks):032x}")
        super().enqueue()

    def _new_cluster(self) -> SimulatedCluster:
        self.slurm = CompanionCluster(self.faults, self.clock, lambda: self.server.status)
        self.slurm.is_meant = self._is_of_the_task
        return self.slurm

    def companions_without_job(self) -> set[TaskId]:
        """Those that wait in the queue, and for which the daemon knows of no job."""
        attempts = filter(None, map(parse_job_name, self.jobs_of()))
        return self.server.entries.keys() - {self.server.task, *(attempt.task for attempt in attempts)}

    def _is_of_the_task(self, job: SimulatedJob) -> bool:
        attempt = parse_job_name(self.own_name(job))
        return attempt is not None and attempt.task == self.server.task


class CompanionCluster(ArrayCluster):
    is_meant: Callable[[SimulatedJob], bool]

    def pending_jobs(self) -> list[SimulatedJob]:
        return [job for job in super().pending_jobs() if self.is_meant(job)]

    def running_jobs(self) -> list[SimulatedJob]:
        return [job for job in super().running_jobs() if self.is_meant(job)]
