"""Benchmark of ``scripts/bench/passes``: processor time of a daemon's pass over tasks whose jobs wait in the scheduler.

The daemon, its run directories and its records are real. The server and the scheduler answer from memory, so that only
the daemon's own work is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.api.events import EventsApi
from hpc_agent.api.queues import QueuesApi
from hpc_agent.api.session import ApiSession
from hpc_agent.api.tasks import TasksApi
from hpc_agent.api.workers import WorkersApi
from hpc_agent.clock import SYSTEM
from hpc_agent.config.settings import AllSettings, ApiSettings, HpcSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.loop import Daemon, LoopOptions
from hpc_agent.daemon.options import DaemonOptions, JobNaming
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId, QueueId, TaskId, WorkerId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, LiveJob, SubmitResult
from hpc_agent.redact import Secret
from hpc_agent.retry import Budget
from hpc_agent.runs.attempt_records import SubmissionRecord
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.schedulers.base import JobOrigin, SubmitRequest

FEW, MANY = 300, 3000
RATIO = 1.5
"""Time for each task among many, times that among few: at most."""
CLUSTER, QUEUE = "bench", QueueId("q" * 32)


class MemoryServer(ApiSession):
    """Session that answers from memory: one queue with its entries."""

    def __init__(self, tasks: Sequence[TaskId]) -> None:
        settings = ApiSettings(api_server="http://memory.invalid", access_key="K", secret_key=Secret("S"))
        super().__init__(settings)
        entries = [{"task": task, "added": _added(task)} for task in tasks]
        self._queues = {"queues": [{"id": QUEUE, "name": "queue", "entries": entries}]}

    def call(
        self,
        endpoint: str,
        payload: Mapping[str, Any] | None = None,
        *,
        budget: Budget | None = None,
        repeatable: bool = True,
        version: str = "",
    ) -> dict[str, Any]:
        return self._queues if endpoint == "queues.get_all" else {}

    def call_lines(self, endpoint: str, items: Iterable[Mapping[str, Any]], *, budget: Budget) -> dict[str, Any]:
        return {}


class MemoryClient(Client):
    """The services that a pass calls."""

    def __init__(self, session: ApiSession) -> None:
        self.session = session
        self.tasks = TasksApi(session)
        self.queues = QueuesApi(session)
        self.events = EventsApi(session)
        self.workers = WorkersApi(session, SYSTEM)


class MemoryScheduler:
    """Scheduler that lists one waiting job for each task."""

    name = "slurm"

    def __init__(self, jobs: Sequence[LiveJob]) -> None:
        self._jobs = jobs

    def cluster(self) -> str:
        return CLUSTER

    def about(self) -> JobOrigin:
        return JobOrigin("memory")

    def submit(self, request: SubmitRequest) -> SubmitResult:
        return Accepted(JobId("1"))

    def live_jobs(self) -> Sequence[LiveJob]:
        return self._jobs

    def room(self) -> Capacity:
        return Capacity()

    def find(self, job_name: str, since: datetime) -> JobId | None:
        return None

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        return {}

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        raise AssertionError(f"nothing is to be cancelled: {jobs}")

    def release(self, jobs: Sequence[JobId]) -> None:
        raise AssertionError(f"nothing is to be released: {jobs}")


def _added(task: TaskId) -> str:
    return f"2026-01-01T00:00:00+{task[-6:]}"


def daemon_with(count: int, folder: Path) -> Daemon:
    """Daemon whose ``count`` tasks have been submitted and wait in the scheduler."""
    tasks = [TaskId(f"{number:032x}") for number in range(count)]
    settings = AllSettings(hpc=HpcSettings(root=folder, keep_runs_days=0, max_jobs=2 * MANY))
    settings = msgspec.structs.replace(
        settings,
        hpc=msgspec.structs.replace(settings.hpc, envs=msgspec.structs.replace(settings.hpc.envs, build_on="compute")),
    )
    runs, now = RunsFolder(settings.hpc.runs), datetime.now(timezone.utc)
    jobs = []
    for number, task in enumerate(tasks):
        attempt, job = attempt_for(CLUSTER, QUEUE, task, _added(task)), JobId(str(1000 + number))
        runs.of(attempt).create().write_submission(
            SubmissionRecord(
                state="accepted", at=now, queue=QUEUE, queue_name="queue", cluster=CLUSTER, job=job, known=True
            )
        )
        jobs.append(LiveJob(job, attempt.job_name, JobState.PENDING, "PENDING", "Priority", submitted=now))
    naming = JobNaming(WorkerId("bench"), "bench")
    launch = JobLaunchConfig(folder / "agent.conf", ["hpc-agent"], DaemonOptions(batch_system="slurm"), naming)
    options = LoopOptions((QUEUE,), WorkerId("bench"))
    return Daemon(MemoryClient(MemoryServer(tasks)), MemoryScheduler(jobs), settings, launch, options, SYSTEM)


def seconds_per_task(count: int, passes: int) -> float:
    """Median processor seconds of a pass, for each of ``count`` tasks; the first pass, which tells each task's user
    why it waits, is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        daemon = daemon_with(count, Path(folder))
        taken = []
        for _ in range(passes + 1):
            begin = time.process_time()
            daemon.run_pass()
            taken.append(time.process_time() - begin)
    return statistics.median(taken[1:]) / count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=5, help="of each number of tasks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    arguments = parser.parse_args()
    found = {count: seconds_per_task(count, arguments.passes) for count in (FEW, MANY)}
    for count, seconds in found.items():
        print(f"{count:5d} waiting tasks   {seconds * count:7.3f} s a pass   {seconds * 1e6:7.1f} µs a task")
    ratio = found[MANY] / found[FEW]
    print(f"time for each task, {MANY} against {FEW}: {ratio:.2f}")
    goal = {
        "name": f"pass over waiting tasks: time for each of {MANY}, times that for each of {FEW}",
        "value": round(ratio, 3),
        "bound": RATIO,
        "met": ratio <= RATIO,
    }
    if arguments.json:
        results = {"goals": [goal], "seconds_per_task": {str(count): seconds for count, seconds in found.items()}}
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if goal["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
