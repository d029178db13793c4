"""Inspector of a batch system's jobs and of the tasks that its pilots run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from hpc_agent.clock import Clock
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord
from hpc_agent.schedulers.inspector import AccountedUsage, JobInspector, ListedJob, SubmitTest
from hpc_agent.schedulers.pilots.board import task_number
from hpc_agent.schedulers.pilots.scheduler import OpenTask, PilotScheduler


class PilotInspector(JobInspector):
    """See ``schedulers.inspector.JobInspector``; still one query of the batch system."""

    def __init__(self, base: JobInspector, scheduler: PilotScheduler, clock: Clock) -> None:
        super().__init__(scheduler)
        self._base = base
        self._pilots = scheduler
        self._clock = clock

    def listed(self) -> Sequence[ListedJob]:
        listed = self._base.listed()
        partitions = {each.job.id: each.partition for each in listed}
        tasks = self._pilots.look_at([each.job for each in listed])
        return [*listed, *(shown for task in tasks if (shown := self._listed(task, partitions)) is not None)]

    def _listed(self, task: OpenTask, partitions: Mapping[JobId, str]) -> ListedJob | None:
        job, claim = task.job(), task.claim
        if job is None:
            return None
        if claim is None or task.pilot is None:
            return ListedJob(job, limit_seconds=task.task.time_limit)
        used = max(int((self._clock.now() - claim.at).total_seconds()), 0)
        return ListedJob(job, partitions.get(task.pilot.id, ""), used, task.task.time_limit, claim.at)

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        return self._pilots.records(jobs)

    def usage(self, jobs: Sequence[str], since: datetime) -> Mapping[str, AccountedUsage]:
        """Accounting knows nothing of a single task in a pilot, whose figures its agent has reported."""
        known = [job for job in jobs if task_number(job) is None]
        return self._base.usage(known, since) if known else {}

    def test(self, script: Path, workdir: Path, *, partition: str = "") -> SubmitTest:
        return self._base.test(script, workdir, partition=partition)
