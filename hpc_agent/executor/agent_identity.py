"""Identity of an executor: its job, worker id and run directory."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.attempt import Attempt, attempt_for
from hpc_agent.domain.ids import AttemptId, JobId, QueueId, TaskId, WorkerId
from hpc_agent.domain.queue import Queue
from hpc_agent.runs.directory import RUN_DIR, RunDirectory, RunsFolder
from hpc_agent.schedulers.backends import job_variables


class AgentIdentity(msgspec.Struct, frozen=True):
    worker: WorkerId
    host: str
    owner: str
    """As in ``runs.attempt_records.ClaimRecord``: ``job:<id>`` or ``agent:<host>:<pid>``."""
    job: JobId | None
    restart_count: int
    """Of the job, as the scheduler counts; 0 at its first start."""
    run_dir: Path | None
    cluster: str
    pid: int
    step_processes: int = 1
    """Processes of our step of the job, all of which may run the same command."""

    @property
    def daemon_managed(self) -> bool:
        """Whether a daemon submitted this job: it reads our reports and finishes what we cannot."""
        return self.run_dir is not None

    def directory(self, runs: RunsFolder, task: TaskId, queue: Queue | None) -> RunDirectory:
        """Our run directory: the daemon's, or the same that a daemon would take for this queue entry."""
        if self.run_dir is not None:
            return RunDirectory(self.run_dir)
        if self.restart_count and (before := self._claimed_before(runs, task)):
            return before
        entry = next((entry for entry in queue.entries if entry.task == task), None) if queue else None
        if queue is not None and entry is not None:
            return runs.of(attempt_for(self.cluster, queue.id, task, entry.added))
        return runs.of(Attempt(task, _unqueued(self.owner)))

    def _claimed_before(self, runs: RunsFolder, task: TaskId) -> RunDirectory | None:
        """Where an earlier start of this job claimed the task, which is in no queue since."""
        for directory in runs.attempts(task):
            claim = directory.claim()
            if claim is not None and claim.owner == self.owner:
                return directory
        return None


def _unqueued(owner: str) -> AttemptId:
    """An attempt of a task that is in no queue: one for each job or process that runs it."""
    return attempt_for("", QueueId(""), TaskId(owner), "").id


def identify(settings: AllSettings, environ: Mapping[str, str] = os.environ) -> AgentIdentity:
    """From the environment that a scheduler or a terminal gives us."""
    host = socket.gethostname()
    found = job_variables(environ)
    run_dir = environ.get(RUN_DIR)
    pid = os.getpid()
    return AgentIdentity(
        worker=WorkerId(settings.agent.worker_id or f"{settings.agent.name}:{found.worker if found else pid}"),
        host=host,
        owner=f"job:{found.job}" if found else f"agent:{host}:{pid}",
        job=found.job if found else None,
        restart_count=found.restart_count if found else 0,
        run_dir=Path(run_dir) if run_dir else None,
        cluster=settings.hpc.cluster or (found.cluster if found else "") or host,
        pid=pid,
        step_processes=found.step_processes if found else 1,
    )
