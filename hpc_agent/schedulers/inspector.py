"""Inspector of jobs: what a person asks a scheduler about jobs, beyond what the daemon needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from hpc_agent.domain.efficiency import Efficiency
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, LiveJob
from hpc_agent.errors import InputError
from hpc_agent.schedulers.base import Scheduler


class ListedJob(msgspec.Struct, frozen=True):
    """A job that the scheduler lists, with what a table of jobs shows of it. None, empty: it does not tell."""

    job: LiveJob
    partition: str = ""
    used_seconds: int | None = None
    limit_seconds: int | None = None
    started: datetime | None = None


class SubmitTest(msgspec.Struct, frozen=True):
    """What the scheduler says to a submission that is only tried."""

    accepted: bool
    message: str
    """Its own words."""
    start: datetime | None = None
    """When it expects that the job would start."""
    nodes: str = ""
    partition: str = ""


class AccountedUsage(msgspec.Struct, frozen=True):
    """What one job used, as accounting knows it."""

    name: str
    """The job's: ids are used again, and mean nothing on another cluster."""
    efficiency: Efficiency


class JobInspector:
    """Inspector that knows no more than the scheduler tells the daemon; backends that can tell more have their own."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def listed(self) -> Sequence[ListedJob]:
        """All jobs of this user that the scheduler lists, in one query.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """
        return [ListedJob(job) for job in self.scheduler.live_jobs()]

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        """As ``Scheduler.records``."""
        return self.scheduler.records(jobs)

    def usage(self, jobs: Sequence[str], since: datetime) -> Mapping[str, AccountedUsage]:
        """What these jobs used, by id; without those that accounting does not know. ``since``: before they began.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """
        return {}

    def test(self, script: Path, workdir: Path, *, partition: str = "") -> SubmitTest:
        """Have the scheduler check a script without submitting it. ``partition``: in place of the script's.

        Raises:
            InputError: this scheduler cannot do that.
            SchedulerUnavailableError: no usable answer.
        """
        raise InputError(f"the scheduler {self.scheduler.name} cannot test a script without submitting it")
