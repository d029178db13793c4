"""A pilot as the scheduler of its tasks: what a task's own agent may ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import CurrentJob, JobState
from hpc_agent.errors import ConfigError
from hpc_agent.file_records import CorruptFileError
from hpc_agent.logs import EventLog
from hpc_agent.schedulers import registry
from hpc_agent.schedulers.base import Backend, CurrentJobClient, JobVariables, Scheduler, ScriptLanguage, Share
from hpc_agent.schedulers.pilots import gate
from hpc_agent.schedulers.pilots.board import PilotClaim, StopCause, TaskBoard, task_number

log = EventLog("schedulers.pilots")

PREFIX = "HPC_AGENT_PILOT_"
JOB, BOARD, CLUSTER = f"{PREFIX}TASK", f"{PREFIX}BOARD", f"{PREFIX}CLUSTER"
CPUS, MEMORY, NODE = f"{PREFIX}CPUS", f"{PREFIX}MEMORY_MB", f"{PREFIX}NODE"
BATCH_JOB = f"{PREFIX}JOB"
"""Variables that a pilot sets for the agent of a task."""

_STOP_VISIBLE_S = 3.0
"""Slurm signals all processes of a pilot's job at once: its tasks' agents may be quicker than the pilot."""


class PilotBackend(Backend):
    """See ``schedulers.base.Backend``: only for processes inside of a pilot."""

    name = "pilots"
    is_batch_system = False

    def is_installed(self) -> bool:
        return False

    def create(
        self, settings: HpcSettings, clock: Clock, *, share: Share | None = None, timeout: float | None = None
    ) -> Scheduler:
        raise ConfigError("pilots are jobs of a batch system: set hpc.scheduler to that")

    def script(self, settings: HpcSettings) -> ScriptLanguage:
        raise ConfigError("pilots are jobs of a batch system: set hpc.scheduler to that")

    def job_variables(self, environ: Mapping[str, str]) -> JobVariables | None:
        job = environ.get(JOB)
        if not job:
            return None
        return JobVariables(
            backend=self.name,
            job=JobId(job),
            worker=f"pilot:{environ.get(BATCH_JOB, '')}:{job}",
            cluster=environ.get(CLUSTER, ""),
            cpus=float(environ.get(CPUS) or 1),
            memory_mb=float(environ.get(MEMORY) or 0) or None,
            node_name=environ.get(NODE, ""),
            shares_control_group=True,
        )

    def current_job(self, job: JobId, environ: Mapping[str, str]) -> CurrentJobClient:
        return CurrentPilotTask(TaskBoard(Path(environ[BOARD])), job, SYSTEM)

    def time_limit_in(self, script: str) -> float | None:
        """The script is that of a job of its own: what it asks for holds here too."""
        found = (registry.load(name).time_limit_in(script) for name in registry.BATCH_SYSTEMS)
        return next((limit for limit in found if limit is not None), None)

    def foreign(self, environ: Mapping[str, str]) -> Iterable[str]:
        return [name for name in environ if name.startswith(PREFIX)]


class CurrentPilotTask:
    """See ``schedulers.base.CurrentJobClient``."""

    def __init__(self, board: TaskBoard, job: JobId, clock: Clock) -> None:
        number = task_number(job)
        assert number is not None, f"{job} is not the id of a task in a pilot"
        self._board = board
        self._number = number
        self._clock = clock

    def look(self) -> CurrentJob | None:
        now, deadline = self._clock.now(), self._clock.monotonic() + _STOP_VISIBLE_S
        try:
            task, claim = self._board.task(self._number), self._board.claim(self._number)
            if task is None or claim is None:
                return None
            ran_for = max(int((now - claim.at).total_seconds()), 0)
            while (stop := self._board.stop(self._number)) is None:
                if not _lives(claim):
                    return CurrentJob(JobState.NODE_FAIL, "its pilot died", ran_for=ran_for, time_limit=task.time_limit)
                if self._clock.monotonic() > deadline:
                    return CurrentJob(JobState.RUNNING, ran_for=ran_for, time_limit=task.time_limit)
                self._clock.sleep(0.1)
        except (OSError, CorruptFileError) as error:
            log.warning("job.state_unavailable", job=f"p{self._number}", error=error)
            return None
        state = JobState.CANCELLED if stop.cause is StopCause.CANCELLED else JobState.RUNNING
        reason = "TimeLimit" if stop.cause is StopCause.TIME_LIMIT else ""
        return CurrentJob(state, reason, 0, ran_for, task.time_limit, stop.cause is StopCause.PILOT)

    def is_end_announced(self) -> bool | None:
        try:
            return self._board.stop(self._number) is not None
        except (OSError, CorruptFileError):
            return None

    def requeue(self) -> str:
        return "a task in a pilot has no job of its own that could be started again"

    def release(self) -> None:
        gate.report_end()


def _lives(claim: PilotClaim) -> bool:
    """Whether the pilot's own process lives; asked on its node."""
    return claim.process is None or claim.process.is_running()


BACKEND = PilotBackend()
