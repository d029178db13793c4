"""A simulated Slurm that takes job arrays, and a site whose daemon submits many tasks by them."""

from __future__ import annotations

from pathlib import Path

from simulated_cluster import SimulatedCluster, SimulatedJob
from simulated_site import SimulatedSite

from hpc_agent.domain.ids import JobId, TaskId
from hpc_agent.domain.job import Accepted, LimitReached, OutcomeUnknown, Refused, SubmitResult
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.slurm.array_driver import SlurmArrays
from hpc_agent.schedulers.slurm.array_folders import ArrayFolders
from hpc_agent.schedulers.slurm.commands import ArrayRequest
from hpc_agent.schedulers.slurm.settings import SlurmSettings


class ArrayCluster(SimulatedCluster):
    """Counts a job for each element, as Slurm does."""

    largest = 1000
    limit = 1000
    refusal = ""
    sizes: list[int]
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
        super().__init__(folder)
        self.slurm = ArrayCluster(self.faults, self.clock, lambda: self.server.status)
        self.slurm.sizes = []
        self.size = size
        self.tasks = [self.server.task]
        for number in range(1, tasks):
            task = self.server("tasks.create", name=f"sweep {number}", type="training")["id"]
            self.server("tasks.enqueue", task=task, queue=self.server.queue)
            self.tasks.append(TaskId(task))
        self.enqueue()
        self.restart_daemon()

    def restart_daemon(self) -> None:
        settings = SlurmSettings(array_size=self.size)
        # What another process would read.
        folders = ArrayFolders(self.runs.path / ".arrays")
        self.cluster = SlurmArrays(self.slurm, folders, settings, self.clock)  # type: ignore[assignment]
        super().restart_daemon()

    def run_dirs(self) -> list[RunDirectory]:
        return [directory for task in self.tasks for directory in self.runs.attempts(task)]

    def jobs_of(self) -> dict[str, list[JobId]]:
        """The jobs that are not ended, by the names that the daemon sees."""
        found: dict[str, list[JobId]] = {}
        for job in self.cluster.live_jobs():
            if job.id in self.slurm.jobs:
                found.setdefault(job.name, []).append(job.id)
        return found
