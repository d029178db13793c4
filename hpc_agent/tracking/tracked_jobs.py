"""Observer of tracked jobs: their folders, one squeue, the records of those that left it, their tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, LiveJob
from hpc_agent.domain.job_phase import WAITING_STATES, SubmissionState, SubmissionView
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import HpcAgentError, SchedulerUnavailableError
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.tracking.tracked_records import (
    SidecarRecord,
    TrackedDirectory,
    TrackedJobRecord,
    TrackedRoot,
    TrackingPlan,
)
from hpc_agent.tracking.tracking_policy import TrackedJobSnapshot
from hpc_agent.watcher.history import ObservationHistory
from hpc_agent.watcher.identity import ExpectedJob, own_records
from hpc_agent.watcher.phase_log import PhaseLog
from hpc_agent.wire.task_state import TaskState

log = EventLog("follow")

_SIDECAR_AFTER_S = 60.0
"""Seconds after a job's start in which its sidecar may still be about to start."""
_SILENCED = "non-responsive"
"""The server's own text for stopping a task that it heard nothing of for long."""


class TrackedJob(msgspec.Struct, frozen=True):
    """Records of one folder."""

    folder: TrackedDirectory
    plan: TrackingPlan
    job: TrackedJobRecord
    sidecar: SidecarRecord | None
    task_started: bool

    @property
    def jobs(self) -> list[JobId]:
        """All elements of an array, as squeue and sacct name them."""
        return [JobId(f"{self.job.id}_{index}") for index in self.plan.indices] or [JobId(self.job.id)]


class TrackedJobsObserver:
    """Observer of all tracked jobs of one user and cluster."""

    def __init__(
        self, client: Client, scheduler: Scheduler, folders: TrackedRoot, clock: Clock, lost_after: float
    ) -> None:
        self._client = client
        self._scheduler = scheduler
        self._folders = folders
        self._history = ObservationHistory(clock)
        self._phases = PhaseLog()
        self._lost_after = lost_after

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
            # The components of a heterogeneous job are 12+0, 12+1 …; the first represents all.
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
        expected = tracked.plan.expected()
        if tracked.job.known or not any(expected.carries_name(job.name, job.submitted) for job in ours):
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
                    found.append(TrackedJob(folder, plan, job, folder.sidecar(), folder.start() is not None))
            except SchedulerUnavailableError:
                raise
            except (HpcAgentError, OSError) as error:
                log.error("task.folder_unreadable", task=folder.task, error=error)
        return found

    def _records(self, followed: Sequence[TrackedJob], live: Mapping[JobId, LiveJob]) -> Mapping[JobId, JobRecord]:
        missing: dict[JobId, ExpectedJob] = {}
        for tracked in followed:
            absent = [job for job in tracked.jobs if job not in live]
            if absent and tracked.plan.indices:
                # Elements that never started share the record of the array itself.
                absent.append(JobId(tracked.job.id))
            missing.update(dict.fromkeys(absent, tracked.plan.expected(confirmed=tracked.job.known)))
        return own_records(self._scheduler, missing)

    def _snapshot(
        self,
        tracked: TrackedJob,
        live: Mapping[JobId, LiveJob],
        records: Mapping[JobId, JobRecord],
        task: TaskState | None,
    ) -> TrackedJobSnapshot:
        absent = [job for job in tracked.jobs if job not in live]
        rest = records.get(JobId(tracked.job.id))
        known = (records.get(job, rest) for job in absent)
        text = f"{task.reason} {task.message}" if task else ""
        snapshot = TrackedJobSnapshot(
            job=tracked.job.id,
            submitted=SubmissionView(SubmissionState.ACCEPTED, tracked.plan.since, JobId(tracked.job.id)),
            jobs=tuple(live[job] for job in tracked.jobs if job in live),
            records=tuple(record for record in known if record is not None),
            expected=len(absent),
            status=task.status if task else None,
            message=task.message if task else "",
            is_array=bool(tracked.plan.indices),
            queued=bool(tracked.plan.queue),
            task_started=tracked.task_started,
            abort_requested=bool(task and task.abort_requested),
            silenced=bool(task and task.status is TaskStatus.STOPPED and _SILENCED in text),
        )
        snapshot = self._history.extend(snapshot, tracked.folder.observations)
        snapshot = msgspec.structs.replace(snapshot, has_sidecar=_has_sidecar(tracked, snapshot))
        self._phases.note(tracked.folder.task, tracked.folder.task, snapshot, self._lost_after)
        return snapshot


def _has_sidecar(tracked: TrackedJob, snapshot: TrackedJobSnapshot) -> bool:
    """Whether a sidecar sends the console, or may: two senders at once would send lines twice."""
    if not tracked.plan.hooked:
        return False
    if tracked.sidecar is not None and not tracked.sidecar.over:
        return True
    if all(job.state in WAITING_STATES for job in snapshot.jobs):
        return tracked.sidecar is None
    return snapshot.running_seconds < _SIDECAR_AFTER_S
