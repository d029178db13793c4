"""Slurm in memory, read by the real driver within its own rate limit: jobs, and how often each command was started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from hpc_agent.clock import Clock
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, SubmitResult
from hpc_agent.process import programs
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.slurm.commands import SACCT_FIELDS, SQUEUE_COLUMNS
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.settings import SlurmSettings

CLUSTER = "bench"


@dataclass
class SlurmJob:
    id: JobId
    name: str
    submitted: int
    """Unix time, as the others."""
    started: int = 0
    """0: it waits."""
    ended: int = 0


class CountingSlurm(SlurmScheduler):
    """One user's jobs. ``commands`` is shared by all users of a controller."""

    def __init__(self, commands: Counter[str], ids: count[int], clock: Clock) -> None:
        super().__init__(SlurmSettings(accounting="sacct"), cluster=CLUSTER, clock=clock)
        self._commands = commands
        self._ids = ids
        self._clock = clock
        self.jobs: dict[JobId, SlurmJob] = {}
        self.rows = 0
        """Of all answers of squeue."""

    def add(self, name: str) -> SlurmJob:
        job = SlurmJob(JobId(str(next(self._ids))), name, self._now())
        self.jobs[job.id] = job
        return job

    def start(self, job: SlurmJob) -> None:
        job.started = self._now()

    def end(self, job: SlurmJob) -> None:
        job.ended = self._now()

    def waiting(self) -> SlurmJob | None:
        """The first job that waits."""
        return next((job for job in self.jobs.values() if not job.started), None)

    def submit(self, request: SubmitRequest) -> SubmitResult:
        self._requests.take()
        self._commands["sbatch"] += 1
        return Accepted(self.add(request.job_name).id)

    def _run(self, argv: Sequence[str]) -> programs.CompletedProcess:
        self._requests.take()
        self._commands[argv[0]] += 1
        if argv[0] == "squeue":
            text = self._queue(argv)
        elif argv[0] == "sacct":
            text = self._records(argv)
        elif list(argv) == ["scontrol", "show", "config"]:
            text = f"ClusterName = {CLUSTER}\nMaxArraySize = 1001\nMinJobAge = 300 sec\n"
        else:
            raise AssertionError(f"nothing else is to be asked: {argv}")
        return programs.CompletedProcess(tuple(argv), 0, text, "")

    def _queue(self, argv: Sequence[str]) -> str:
        columns = next(word for word in argv if word.startswith("--Format=")).removeprefix("--Format=").split(",")
        delimiter = columns[0].split(":")[1].lstrip("0123456789")
        live = [job for job in self.jobs.values() if not job.ended]
        self.rows += len(live)
        header = {name: "JOBID" if name == "JobArrayID" else name for name in SQUEUE_COLUMNS}
        rows = [header, *map(_queue_row, live)]
        return _lines(
            "".join(f"{row[name]:<{width}}{delimiter}" for name, width in SQUEUE_COLUMNS.items()) for row in rows
        )

    def _records(self, argv: Sequence[str]) -> str:
        delimiter = next(word for word in argv if word.startswith("--delimiter=")).partition("=")[2]
        asked = next(word for word in argv if word.startswith("--jobs=")).partition("=")[2].split(",")
        rows = [SACCT_FIELDS, *(_record_row(self.jobs[JobId(id)]) for id in asked)]
        return _lines("".join(f"{cell}{delimiter}" for cell in row) for row in rows)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def _lines(rows: Iterable[str]) -> str:
    return "\n".join(rows) + "\n"


def _queue_row(job: SlurmJob) -> Mapping[str, str]:
    return {
        "JobArrayID": job.id,
        "State": "RUNNING" if job.started else "PENDING",
        "RestartCnt": "0",
        "SubmitTime": str(job.submitted),
        "StartTime": str(job.started) if job.started else "N/A",
        "EndTime": "N/A",
        "exit_code": "0:0",
        "NodeList": "n1" if job.started else "",
        "Reason": "None" if job.started else "Priority",
        "Name": job.name,
    }


def _record_row(job: SlurmJob) -> Sequence[str]:
    times = [str(moment) if moment else "Unknown" for moment in (job.submitted, job.started, job.ended)]
    state = "COMPLETED" if job.ended else "RUNNING"
    return [job.id, job.id, state, "0:0", *times, "1-00:00:00", "n1", "None", job.name]
