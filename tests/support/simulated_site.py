"""A site in one process: server, scheduler and jobs that do, or fail to do, their next step when a test says so.

Real are the daemon, the embedded server, the claims of the jobs and what is in the run directories; simulated are the
scheduler and the rest of what a job does. ``tests/contract`` holds both of these to the contract of the real ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from manual_clock import ManualClock
from simulated_cluster import SimulatedCluster, SimulatedJob
from simulated_executor import SimulatedExecutor
from simulated_faults import Faults, ProcessKilledError
from simulated_server import SimulatedServer

from hpc_agent.config.resource_settings import QueueSettings
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.loop import Daemon
from hpc_agent.daemon.loop_options import LoopOptions
from hpc_agent.daemon.options import DaemonOptions, JobNaming
from hpc_agent.domain.ids import WorkerId
from hpc_agent.domain.job import JobState
from hpc_agent.domain.job_phase import TRANSITIONS, JobPhase
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.termination_cause import TerminationCause
from hpc_agent.errors import SchedulerUnavailableError, ServerUnreachableError
from hpc_agent.executor.task_run import FENCE_S
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.schedulers.base import Scheduler


class SimulatedSite:
    """One task, one queue, one daemon, and the jobs that it submits."""

    def __init__(self, folder: Path, **queue: Any) -> None:
        """``queue``: settings of the queue."""
        self.clock = ManualClock()
        self.faults = Faults()
        folder.mkdir(exist_ok=True)
        self.server = SimulatedServer(folder, self.clock, self.faults)
        self.cluster = self._new_cluster()
        envs = msgspec.structs.replace(HpcSettings().envs, build_on="compute")
        queues = {"queue": QueueSettings(**queue)}
        self.settings = AllSettings(hpc=HpcSettings(root=folder, envs=envs, keep_runs_days=0, queues=queues))
        self.runs = RunsFolder(self.settings.hpc.runs)
        self.executors: list[SimulatedExecutor] = []
        self.generation = 0
        """How often its user enqueued or reset the task."""
        self.processes_started = 0
        """Processes of the user that jobs started since the user last enqueued or reset the task."""
        self.finished = 0
        """Those of them that are on record to have ended by themselves."""
        self.most_processes = 0
        """The most processes of the task that ever ran at once."""
        self.other_agent_runs = False
        """Whether an agent of another kind runs a process of the task."""
        self._phases: dict[object, JobPhase] = {}
        self.phase_changes: set[tuple[JobPhase, JobPhase]] = set()
        """Changes of a job's phase from one pass to the next."""
        self.daemon = self._new_daemon()

    def _new_cluster(self) -> SimulatedCluster:
        return SimulatedCluster(self.faults, self.clock, lambda: self.server.status)

    def _new_scheduler(self) -> Scheduler:
        """What a new daemon has between itself and the cluster."""
        return self.cluster

    def own_name(self, job: SimulatedJob) -> str:
        """By which the daemon knows the job."""
        return job.name

    def _new_daemon(self) -> Daemon:
        launch = JobLaunchConfig(
            Path("/conf"), ["hpc-agent"], DaemonOptions(batch_system="slurm"), JobNaming(WorkerId("login"), "login")
        )
        options = LoopOptions((self.server.queue,), WorkerId("login"))
        return Daemon(self.server.client, self._new_scheduler(), self.settings, launch, options, self.clock)

    def advance(self, seconds: float) -> None:
        """Time passes, in which each agent looks at its task every few seconds."""
        self.clock.advance(seconds)
        if seconds >= FENCE_S:
            for executor in self.live_executors():
                executor.check_task()

    # ------------------------------------------------ the daemon

    def run_pass(self) -> None:
        """One pass of the daemon, which may be killed in it."""
        self.faults.calls = 0
        try:
            self.daemon.run_pass()
        except ProcessKilledError:
            self._check_phases()  # what the killed one had found
            self.restart_daemon()
        except (ServerUnreachableError, SchedulerUnavailableError):
            pass
        self._check_phases()

    def _check_phases(self) -> None:
        """Each job's phase may follow the one that the pass before found, also where another daemon found that."""
        for key, phase in self.daemon._phases.phases.items():
            before = self._phases.get(key, phase)
            if phase is not before:
                assert phase in TRANSITIONS[before], f"{before.name} → {phase.name} is not in TRANSITIONS"
                self.phase_changes.add((before, phase))
            self._phases[key] = phase

    def restart_daemon(self) -> None:
        self.daemon._leases.give_back()
        self.daemon = self._new_daemon()

    def close(self) -> None:
        self.daemon._leases.give_back()
        self.server.close()

    # ------------------------------------------------ jobs

    def start_job(self, job: SimulatedJob) -> SimulatedExecutor:
        job.state = JobState.RUNNING
        executor = SimulatedExecutor(self, job)
        self.executors.append(executor)
        return executor

    def live_executors(self) -> list[SimulatedExecutor]:
        return [executor for executor in self.executors if not executor.ended]

    def end_job(
        self,
        job: SimulatedJob,
        state: JobState,
        cause: TerminationCause,
        *,
        kill: bool = False,
        unreachable: bool = False,
    ) -> None:
        """Slurm ends a job: it terminates the executor, kills it, or does not reach it."""
        self._end_executor(job, cause, kill=kill, unreachable=unreachable)
        self.cluster.end(job, state)

    def requeue(self, job: SimulatedJob, *, kill: bool = False, unreachable: bool = False) -> None:
        self._end_executor(job, TerminationCause.REQUEUED, kill=kill, unreachable=unreachable)
        job.restarts += 1
        job.state = JobState.PENDING

    def _end_executor(self, job: SimulatedJob, cause: TerminationCause, *, kill: bool, unreachable: bool) -> None:
        for executor in self.live_executors():
            if executor.job is not job or executor.restart != job.restarts:
                continue
            if unreachable:
                executor.unreachable = True
                continue
            if not kill:
                executor.terminate(cause)
                executor.finish()
            executor.vanish()

    def count_processes(self) -> None:
        processes = sum(executor.has_process for executor in self.executors) + self.other_agent_runs
        self.most_processes = max(self.most_processes, processes)

    # ------------------------------------------------ others

    def start_other_agent(self) -> None:
        """An agent of another kind takes the task off the queue and runs it."""
        self.server.start_elsewhere()
        self.other_agent_runs = True
        self.count_processes()

    def step_other_agent(self, *, ends: bool) -> None:
        """It ends when the task is taken back or aborted; else it reports, or completes the task if it ``ends``."""
        if not self.other_agent_runs:
            return
        if not self.server.runs_elsewhere:
            self.other_agent_runs = False
        elif self.server.seen.abort_requested:
            self.server.end_elsewhere(TaskStatus.STOPPED)
            self.other_agent_runs = False
        elif ends:
            self.server.end_elsewhere(TaskStatus.COMPLETED)
            self.other_agent_runs = False
        else:
            self.server.report_elsewhere()

    def enqueue(self) -> None:
        """Its user enqueues the task."""
        self._begin_generation()
        self.server.enqueue()

    def abort_task(self) -> None:
        """Its user aborts the task; to the server, agents that live have reported a moment ago."""
        for executor in self.live_executors():
            executor.report()
        self.step_other_agent(ends=False)
        self.server.abort()

    def reset_task(self) -> None:
        """Its user resets the task, which each agent that runs it sees within seconds."""
        self.server.reset()
        self._begin_generation()
        for executor in self.live_executors():
            executor.check_task()
        self.step_other_agent(ends=False)

    def _begin_generation(self) -> None:
        self.generation += 1
        self.processes_started = self.finished = 0
