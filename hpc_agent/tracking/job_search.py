"""Search for the job of a submission, by its name or by the numbers that sbatch printed.

People give many jobs the same name, so that more must fit: the time of the submission, and that no other task has the
job.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from hpc_agent.domain.ids import JobId
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.file_records import CorruptFileError
from hpc_agent.schedulers.base import CLOCK_SKEW, Scheduler
from hpc_agent.tracking.tracked_records import TrackedDirectory, TrackedRoot, TrackingPlan
from hpc_agent.watcher.identity import carries_name

_SAME_CLOCK = timedelta(seconds=2)
"""Between the clocks of two machines that keep time, whole seconds included."""


class AmbiguousJobError(Exception):
    """Several jobs may be the one. Which one it is shows when it starts and records its id itself."""


class JobSearch:
    """Search for jobs of tracked submissions, without those that other tasks have."""

    def __init__(self, scheduler: Scheduler, folders: TrackedRoot) -> None:
        self._scheduler = scheduler
        self._folders = folders

    def among(self, named: Collection[JobId], folder: TrackedDirectory, plan: TrackingPlan) -> JobId | None:
        """The one of several numbers that is the submitted job's; None if none is.

        Raises:
            SchedulerUnavailableError: nothing is known.
            AmbiguousJobError: more than one may be.
        """
        free = set(named) - self._taken(folder)
        records = self._scheduler.records(dict.fromkeys(free, plan.since)) if free else {}
        fitting = [job for job in free if (r := records.get(job)) and plan.expected().carries_name(r.name, r.submitted)]
        if len(fitting) > 1:
            raise AmbiguousJobError(f"it may be one of {', '.join(sorted(fitting))}")
        return fitting[0] if fitting else None

    def listed(self, plan: TrackingPlan) -> frozenset[JobId]:
        """Jobs that carry the name before sbatch is called; as far as that is known."""
        try:
            return frozenset(
                array_of(job.id) for job in self._scheduler.live_jobs() if carries_name(job.name, plan.job_name)
            )
        except SchedulerUnavailableError:
            return frozenset()

    def by_name(
        self,
        folder: TrackedDirectory,
        plan: TrackingPlan,
        until: datetime,
        *,
        exists: bool,
        before: Collection[JobId] = (),
    ) -> JobId | None:
        """The job that carries the name; None if there is certainly none.

        ``until``: when sbatch had ended. ``exists``: it had ended well, so that there is a job. ``before``: as
        ``listed`` gave them.

        Raises:
            SchedulerUnavailableError: nothing is known.
            AmbiguousJobError: more than one may be meant, or one that was submitted a little before or after.
        """
        others = self._taken(folder).union(before)
        found = {job: at for job, at in self._listed(plan).items() if job not in others}
        during = _within(found, plan.since - _SAME_CLOCK, until + _SAME_CLOCK)
        if not during:
            # It may have ended, while one of the name that was submitted a little before is still listed.
            found |= {job: at for job, at in self._newest(plan).items() if job not in others}
            during = _within(found, plan.since - _SAME_CLOCK, until + _SAME_CLOCK)
        if len(during) == 1:
            return during[0]
        about = _within(found, plan.since - CLOCK_SKEW, until + CLOCK_SKEW)
        if exists and not during and len(about) == 1:
            return about[0]
        if found:
            raise AmbiguousJobError(f"it may be one of {', '.join(sorted(found))}")
        return None

    def _listed(self, plan: TrackingPlan) -> dict[JobId, datetime]:
        """Jobs that are listed under the name, with the times of their submission."""
        listed = (job for job in self._scheduler.live_jobs() if plan.expected().carries_name(job.name, job.submitted))
        return {array_of(job.id): job.submitted for job in listed if job.submitted}

    def _newest(self, plan: TrackingPlan) -> dict[JobId, datetime]:
        """The job that was last submitted under the name, whether it has ended or not; none where none is known."""
        job = self._scheduler.find(plan.job_name, plan.since)
        record = self._scheduler.records({job: plan.since}).get(job) if job is not None else None
        if job is None or record is None or record.submitted is None:
            return {}
        return {array_of(job): record.submitted}

    def _taken(self, folder: TrackedDirectory) -> set[JobId]:
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


def array_of(job: JobId) -> JobId:
    """The id that sbatch gives: 12 for 12_3 of an array and for 12+1 of a heterogeneous job."""
    return JobId(job.partition("_")[0].partition("+")[0])


def _within(found: Mapping[JobId, datetime], earliest: datetime, latest: datetime) -> list[JobId]:
    return [job for job, at in found.items() if earliest <= at <= latest]
