"""Which of a user's jobs was submitted for a task, where sbatch did not say so clearly. By its name, and never guessed.

People give many jobs the same name, so that more must fit: the time of the submission, and that no other task has it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import LiveJob
from hpc_agent.files import CorruptFileError
from hpc_agent.schedulers.base import CLOCK_SKEW, Scheduler
from hpc_agent.tracking.records import Folder, Folders, Plan

_LONG_NAME = 200
"""Bytes. sacct keeps 255 of a name, and squeue was asked for 256."""


class AmbiguousJobError(Exception):
    """Several jobs fit. Which one is meant shows when it starts and notes itself down."""


def carries_name(seen: str, given: str) -> bool:
    """Whether a job that the scheduler calls ``seen`` has the name that it was submitted with."""
    shown, wanted = " ".join(seen.split()), " ".join(given.split())
    is_cut = len(seen.encode()) >= _LONG_NAME and wanted.startswith(shown.rstrip("\ufffd"))
    return bool(wanted) and (shown == wanted or is_cut)


def fits(seen: str, submitted: datetime | None, plan: Plan) -> bool:
    """Name and time are those of the submission that ``plan`` was written for."""
    return carries_name(seen, plan.job_name) and submitted is not None and submitted >= plan.since - CLOCK_SKEW


class Identifier:
    def __init__(self, scheduler: Scheduler, folders: Folders) -> None:
        self._scheduler = scheduler
        self._folders = folders

    def among(self, named: Collection[JobId], folder: Folder, plan: Plan) -> JobId | None:
        """The one of several numbers that is the submitted job's; None if none is.

        Raises:
            SchedulerUnavailableError: nothing is known.
            AmbiguousJobError: more than one may be.
        """
        free = set(named) - self._taken(folder)
        records = self._scheduler.records(dict.fromkeys(free, plan.since)) if free else {}
        return _only([job for job in free if (r := records.get(job)) and fits(r.name, r.submitted, plan)])

    def by_name(self, folder: Folder, plan: Plan) -> JobId | None:
        """The job that carries the name; None if there is none.

        Raises:
            SchedulerUnavailableError: nothing is known.
            AmbiguousJobError: more than one may be meant.
        """
        taken = self._taken(folder)
        live = {array_of(job) for job in self._scheduler.live_jobs() if fits(job.name, job.submitted, plan)}
        found = _only(live - taken)
        if found is None:
            ended = self._scheduler.find(plan.job_name, plan.since)
            found = None if ended is None else JobId(ended.partition("_")[0])
        return None if found in taken else found

    def _taken(self, folder: Folder) -> set[JobId]:
        """Jobs that other tasks have."""
        taken = set()
        for other in self._folders.all():
            if other.path == folder.path:
                continue
            try:
                job = other.job()
            except (CorruptFileError, OSError):
                continue
            if job is not None:
                taken.add(JobId(job.id))
        return taken


def array_of(job: LiveJob) -> JobId:
    """The id that sbatch gives: 12 for 12_3 of an array and for 12+1 of a heterogeneous job."""
    return JobId(job.id.partition("_")[0].partition("+")[0])


def _only(found: Collection[JobId]) -> JobId | None:
    if len(found) > 1:
        raise AmbiguousJobError(f"{len(found)} jobs may be meant: {', '.join(sorted(found))}")
    return next(iter(found), None)
