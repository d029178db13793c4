"""Site in memory: the daemon, its run directories and its records are real, server and scheduler answer from memory.

Answers are texts as the real ones print them, so that what it takes to read them is part of a pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.api.session import ApiSession
from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.loop import Daemon
from hpc_agent.daemon.loop_options import LoopOptions
from hpc_agent.daemon.options import DaemonOptions, JobNaming
from hpc_agent.domain.attempt import Attempt, attempt_for
from hpc_agent.domain.ids import JobId, QueueId, TaskId, WorkerId
from hpc_agent.process import programs
from hpc_agent.redact import Secret
from hpc_agent.retry import Budget
from hpc_agent.runs.attempt_records import ClaimRecord, SubmissionRecord
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.schedulers.slurm.commands import SQUEUE_COLUMNS
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.wire.task_state import RUN_TOKEN

CLUSTER, QUEUE = "bench", QueueId("q" * 32)
WORKER = WorkerId("bench")


class MemoryServer(ApiSession):
    """Session that answers from memory: one queue with its entries, and tasks that run."""

    def __init__(self, waiting: Sequence[TaskId], running: Mapping[TaskId, Attempt]) -> None:
        settings = ApiSettings(api_server="http://memory.invalid", access_key="K", secret_key=Secret("S"))
        super().__init__(settings)
        entries = [{"task": task, "added": added(task)} for task in waiting]
        self._queues = json.dumps({"queues": [{"id": QUEUE, "name": "queue", "entries": entries}]})
        self._running = running

    def call(
        self,
        endpoint: str,
        payload: Mapping[str, Any] | None = None,
        *,
        budget: Budget | None = None,
        repeatable: bool = True,
    ) -> dict[str, Any]:
        if endpoint == "queues.get_all":
            return dict(json.loads(self._queues))
        if endpoint == "tasks.get_all":
            return {"tasks": [self._state(TaskId(task)) for task in (payload or {})["id"]]}
        return {}

    def call_lines(self, endpoint: str, items: Iterable[Mapping[str, Any]], *, budget: Budget) -> dict[str, Any]:
        return {}

    def _state(self, task: TaskId) -> dict[str, Any]:
        token = f"{self._running[task].id}.0"
        return {"id": task, "status": "in_progress", "last_worker": WORKER, "runtime": {RUN_TOKEN: token}}


class MemorySlurm(SlurmScheduler):
    """Slurm whose squeue prints a job for each attempt: some wait, others run."""

    def __init__(self, pending: Mapping[Attempt, JobId], running: Mapping[Attempt, JobId]) -> None:
        super().__init__(SlurmSettings(requests_per_second=0, accounting="none"), cluster=CLUSTER)
        self.requests = 0
        now = str(int(datetime.now(timezone.utc).timestamp()))
        rows = [("PENDING", "Priority", *item) for item in pending.items()]
        rows += [("RUNNING", "None", *item) for item in running.items()]
        self._rows = [
            {
                "JobArrayID": job,
                "State": state,
                "RestartCnt": "0",
                "SubmitTime": now,
                "StartTime": now if state == "RUNNING" else "N/A",
                "EndTime": "N/A",
                "exit_code": "0:0",
                "NodeList": "n1" if state == "RUNNING" else "",
                "Reason": reason,
                "Name": attempt.job_name,
            }
            for state, reason, attempt, job in rows
        ]

    def _run(self, argv: Sequence[str]) -> programs.CompletedProcess:
        self.requests += 1
        assert argv[0] == "squeue", f"nothing else is to be asked: {argv}"
        columns = argv[-1].removeprefix("--Format=").split(",")
        delimiter = columns[0].split(":")[1].lstrip("0123456789")
        header = {name: "JOBID" if name == "JobArrayID" else name for name in SQUEUE_COLUMNS}
        widths = SQUEUE_COLUMNS.items()
        texts = ["".join(f"{row[name]:<{width}}{delimiter}" for name, width in widths) for row in (header, *self._rows)]
        return programs.CompletedProcess(tuple(argv), 0, "\n".join(texts) + "\n", "")


def added(task: TaskId) -> str:
    return f"2026-01-01T00:00:00+{task[-6:]}"


@dataclass(frozen=True)
class MemorySite:
    daemon: Daemon
    slurm: MemorySlurm


def memory_site(folder: Path, *, waiting: int = 0, pending: int = 0, running: int = 0) -> MemorySite:
    """Daemon of a queue whose first tasks have jobs that wait in the scheduler, while the others wait for a job of
    theirs to end. Tasks that run have left the queue."""
    numbers = iter(range(waiting + pending + running))
    attempts = [
        attempt_for(CLUSTER, QUEUE, task, added(task)) for task in (TaskId(f"{number:032x}") for number in numbers)
    ]
    jobs = {attempt: JobId(str(1000 + number)) for number, attempt in enumerate(attempts[: pending + running])}
    settings = HpcSettings(root=folder, keep_runs_days=0, max_jobs=max(pending + running, 1))
    settings = msgspec.structs.replace(settings, envs=msgspec.structs.replace(settings.envs, build_on="compute"))
    runs, now = RunsFolder(settings.runs), datetime.now(timezone.utc)
    for attempt, job in jobs.items():
        submitted = SubmissionRecord(
            state="accepted", at=now, queue=QUEUE, queue_name="queue", cluster=CLUSTER, job=job, known=True
        )
        runs.of(attempt).create().write_submission(submitted)
    begun = attempts[:running]
    for attempt in begun:
        claim = ClaimRecord(
            state="won",
            at=now,
            owner=f"job:{jobs[attempt]}",
            queue=QUEUE,
            cluster=CLUSTER,
            worker=WORKER,
            user_process_started=True,
        )
        runs.of(attempt).write_claim(claim)
    server = MemoryServer([attempt.task for attempt in attempts[running:]], {a.task: a for a in begun})
    slurm = MemorySlurm({a: jobs[a] for a in attempts[running : running + pending]}, {a: jobs[a] for a in begun})
    launch = JobLaunchConfig(
        folder / "agent.conf", ["hpc-agent"], DaemonOptions(batch_system="slurm"), JobNaming(WORKER, "bench")
    )
    options = LoopOptions((QUEUE,), WORKER)
    return MemorySite(Daemon(Client.through(server), slurm, AllSettings(hpc=settings), launch, options, SYSTEM), slurm)
