"""What one pass sees of the tracked jobs: their folders, one squeue, the records of those that left it, their tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.api.tasks import TaskState
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import UNCONFIRMED_LIMIT_S, JobRecord, LiveJob, unconfirmed_record
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import HpcAgentError, SchedulerUnavailableError
from hpc_agent.file_records import CorruptFileError
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.tracking.decide import WAITS, TrackedJobSnapshot
from hpc_agent.tracking.identify import fits
from hpc_agent.tracking.tracked_records import (
    SidecarRecord,
    TrackedDirectory,
    TrackedHistory,
    TrackedJobRecord,
    TrackedRoot,
    TrackingPlan,
)

log = EventLog("follow")

_INSIDE_AFTER = timedelta(seconds=60)
"""So long after its start a job's own process may be on its way."""
_SILENCED = "non-responsive"
"""The server's own words for stopping a task that it heard nothing of for long."""


@dataclass(frozen=True)
class TrackedJob:
    """What stands in one folder."""

    folder: TrackedDirectory
    plan: TrackingPlan
    job: TrackedJobRecord
    inside: SidecarRecord | None
    begun: bool

    @property
    def jobs(self) -> list[JobId]:
        """All elements of an array, as squeue and sacct name them."""
        return [JobId(f"{self.job.id}_{index}") for index in self.plan.indices] or [JobId(self.job.id)]


class TrackedJobsObserver:
    def __init__(self, client: Client, scheduler: Scheduler, folders: TrackedRoot, clock: Clock) -> None:
        self._client = client
        self._scheduler = scheduler
        self._folders = folders
        self._clock = clock

    def look(self) -> list[tuple[TrackedJob, TrackedJobSnapshot]]:
        """
        Raises:
            ServerUnreachableError, SchedulerUnavailableError: nothing may be concluded.
        """
        followed = self.followed()
        if not followed:
            return []
        live: dict[JobId, LiveJob] = {}
        for job in self._scheduler.live_jobs():
            # The components of a heterogeneous job are 12+0, 12+1 …; the first stands for all.
            live.setdefault(JobId(job.id.partition("+")[0]), job)
        records = self._records(followed, live)
        followed = [self._known(tracked, live) for tracked in followed]
        tasks = self._client.tasks.get_states([tracked.folder.task for tracked in followed], budget=ONCE)
        return [
            (tracked, self._snapshot(tracked, live, records, tasks.get(tracked.folder.task))) for tracked in followed
        ]

    def _known(self, tracked: TrackedJob, live: Mapping[JobId, LiveJob]) -> TrackedJob:
        """Remember that its job was seen under the name that it was submitted with: it may get another one."""
        ours = [live[job] for job in tracked.jobs if job in live]
        if tracked.job.known or not any(fits(job.name, job.submitted, tracked.plan) for job in ours):
            return tracked
        known = msgspec.structs.replace(tracked.job, known=True)
        with contextlib.suppress(OSError):
            tracked.folder.write_job(known)
        return replace(tracked, job=known)

    def followed(self) -> list[TrackedJob]:
        """Of this cluster: another one that shares the file system has jobs of the same numbers."""
        found = []
        for folder in self._folders.all():
            try:
                plan, job = folder.plan(), folder.job()
                if plan is not None and job is not None and plan.cluster in ("", self._scheduler.cluster()):
                    found.append(TrackedJob(folder, plan, job, folder.inside(), folder.begun() is not None))
            except SchedulerUnavailableError:
                raise
            except (HpcAgentError, OSError) as error:
                log.error("its folder cannot be read, leaving it alone", task=folder.task, error=error)
        return found

    def _records(self, followed: Sequence[TrackedJob], live: Mapping[JobId, LiveJob]) -> Mapping[JobId, JobRecord]:
        gone: dict[JobId, datetime] = {}
        for tracked in followed:
            absent = [job for job in tracked.jobs if job not in live]
            gone.update(dict.fromkeys(absent, tracked.plan.since))
            if absent and tracked.plan.indices:
                # Elements that never started share the record of the array itself.
                gone[JobId(tracked.job.id)] = tracked.plan.since
        return self._scheduler.records(gone) if gone else {}

    def _snapshot(
        self,
        tracked: TrackedJob,
        live: Mapping[JobId, LiveJob],
        records: Mapping[JobId, JobRecord],
        get_states: TaskState | None,
    ) -> TrackedJobSnapshot:
        ours = tuple(live[job] for job in tracked.jobs if job in live)
        absent = [job for job in tracked.jobs if job not in live]
        rest = records.get(JobId(tracked.job.id))
        known = [r for job in absent if (record := records.get(job, rest)) and (r := _of_our_job(record, tracked))]
        ended = tuple(record for record in known if record.state.is_final)
        before, seen = self._remember(tracked.folder, ours, ended, doubted=len(known) > len(ended))
        words = f"{get_states.reason} {get_states.message}" if get_states else ""
        return TrackedJobSnapshot(
            job=tracked.job.id,
            status=get_states.status if get_states else None,
            message=get_states.message if get_states else "",
            live=ours,
            ended=ended,
            missing=len(absent) - len(ended),
            is_array=bool(tracked.plan.indices),
            queued=bool(tracked.plan.queue),
            begun=tracked.begun,
            abort_requested=bool(get_states and get_states.abort_requested),
            silenced=bool(get_states and get_states.status is TaskStatus.STOPPED and _SILENCED in words),
            inside=self._is_inside(tracked, seen),
            missing_seconds=(self._clock.now() - seen.gone_since).total_seconds() if seen.gone_since else 0.0,
            record_stable=bool(ended) and before.records == seen.records,
        )

    def _remember(
        self, folder: TrackedDirectory, live: Sequence[LiveJob], ended: Sequence[JobRecord], *, doubted: bool
    ) -> tuple[TrackedHistory, TrackedHistory]:
        """What the pass before saw, and what this one sees. Where that cannot be kept it costs patience only."""
        now = self._clock.now()
        try:
            before = folder.seen()
        except (CorruptFileError, OSError):
            before = TrackedHistory()
        running = any(job.state not in WAITS for job in live)
        doubted_since = (before.doubted_since or now) if doubted and not live else None
        doubted = doubted_since is not None and (now - doubted_since).total_seconds() < UNCONFIRMED_LIMIT_S
        seen = TrackedHistory(
            gone_since=None if live or doubted else before.gone_since or now,
            doubted_since=doubted_since,
            running_since=(before.running_since or now) if running else None,
            records=tuple((record.id, record.raw_state, str(record.ended or "")) for record in ended),
        )
        if seen != before:
            with contextlib.suppress(OSError):
                folder.write_seen(seen)
        return before, seen

    def _is_inside(self, tracked: TrackedJob, seen: TrackedHistory) -> bool:
        """Whether the console is sent from inside, or may be: two at once would send lines twice."""
        if not tracked.plan.hooked:
            return False
        if tracked.inside is not None and not tracked.inside.over:
            return True
        if seen.running_since is None:
            return tracked.inside is None
        return self._clock.now() - seen.running_since < _INSIDE_AFTER


def _of_our_job(record: JobRecord, tracked: TrackedJob) -> JobRecord | None:
    """The record, unless the job's id was never confirmed and this is another job's. For its first seconds slurmdbd
    knows no name: no verdict yet. Plans of earlier versions have none to compare with."""
    if tracked.job.known or not tracked.plan.job_name or fits(record.name, record.submitted, tracked.plan):
        return record
    return None if record.name else unconfirmed_record(record.id)
