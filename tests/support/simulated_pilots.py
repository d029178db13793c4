"""A simulated site whose queue is served by pilots. The board and what is written on it are real; a pilot runs its
tasks one after the other when a test says so."""

from __future__ import annotations

from pathlib import Path

import msgspec
from simulated_arrays import ArrayCluster
from simulated_cluster import SimulatedCluster, SimulatedJob
from simulated_faults import ProcessKilledError
from simulated_site import SimulatedSite

from hpc_agent.clock import Clock
from hpc_agent.config.resource_settings import PilotSettings, ResourceSettings
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.job import JobState
from hpc_agent.domain.pilot_slots import pilot_name
from hpc_agent.domain.status import TaskStatus
from hpc_agent.schedulers.pilots.board import PilotClaim, TaskBoard, TaskEnd, task_job_id, task_number
from hpc_agent.schedulers.pilots.pilot_records import PilotRecords
from hpc_agent.schedulers.pilots.scheduler import PilotScheduler

QUEUE = "queue"
_ENDS = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.STOPPED)


class SimulatedPilots(PilotScheduler):
    """``ends``: how the agents of tasks ended, to be written by their pilot."""

    def __init__(self, base: SimulatedCluster, settings: HpcSettings, clock: Clock) -> None:
        super().__init__(base, settings, clock)
        self.ends: dict[int, TaskEnd] = {}

    def end(self, job: SimulatedJob, state: JobState, code: int = 0) -> None:
        number = task_number(job.id)
        assert number is not None
        self.ends[number] = TaskEnd(state, self._clock.now(), code)


class PilotSite(SimulatedSite):
    def __init__(self, folder: Path) -> None:
        one, all_of_it = (ResourceSettings(num_cpus=1, time_limit=minutes) for minutes in (5, 60))
        super().__init__(folder, mode="pilot", resources=one, pilot=PilotSettings(resources=all_of_it))
        self.settings = msgspec.structs.replace(
            self.settings, hpc=msgspec.structs.replace(self.settings.hpc, scheduler="slurm")
        )
        self.killed_agents = 0
        self.enqueue()
        self.restart_daemon()

    def _new_cluster(self) -> SimulatedCluster:
        self.slurm = ArrayCluster(self.faults, self.clock, lambda: self.server.status)
        return self.slurm

    @property
    def board(self) -> TaskBoard:
        return TaskBoard(self.settings.hpc.pilots / self.slurm.cluster())

    def restart_daemon(self) -> None:
        self.pilots = SimulatedPilots(self.slurm, self.settings.hpc, self.clock)
        self.cluster = self.pilots  # type: ignore[assignment]
        super().restart_daemon()

    def run_pilots(self) -> None:
        """Slurm starts those that wait, and each runs what is on the board; one that is killed ends with its agents."""
        for job in self.slurm.startable_jobs():
            job.state = JobState.RUNNING
        for job in self.slurm.running_jobs():
            assert job.name == pilot_name(QUEUE)
            try:
                self._run_tasks(job)
            except ProcessKilledError:
                for executor in self.live_executors():
                    executor.vanish()
                self.slurm.end(job, JobState.FAILED, 137)

    def _run_tasks(self, pilot: SimulatedJob) -> None:
        records = PilotRecords(self.board, pilot.id)
        for number, kinds in self.board.numbers().items():
            task = self.board.task(number)
            if task is None or kinds & {"claim", "end"}:
                continue
            claim = PilotClaim(self.clock.now(), pilot.id, pilot.restarts, pilot.submitted, "n1")
            if records.take(number, claim):
                self.start_job(SimulatedJob(task_job_id(number), task.name, self.clock.now())).finish()
                end = self.pilots.ends.pop(number)
                self.killed_agents += end.exit_code == 137
                records.end(number, end)
                records.flush()

    def settle(self) -> None:
        """Passes of daemons that live, and pilots, until the task has its final status and its files are put away."""
        for _ in range(60):
            self.run_pass()
            self.run_pilots()
            self.clock.advance(60)
            self.slurm.update_accounting()
            if self.server.status in _ENDS and not self.board.numbers():
                return
        raise AssertionError(f"{self.server.status} with {self.board.numbers()} on the board")
