"""Facts about one task: its status on the server, its place in a queue, its job, the job's record, its last lines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cached_property

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.api.task_views import TaskViews
from hpc_agent.clock import Clock
from hpc_agent.daemon.run_state import exit_evidence
from hpc_agent.domain.attempt import parse_job_name
from hpc_agent.domain.ids import JobId, TaskId
from hpc_agent.domain.job import ExitEvidence, JobRecord, LiveJob
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.task import Task
from hpc_agent.errors import ApiError, SchedulerUnavailableError, ServerUnreachableError
from hpc_agent.inspection.jobs_observer import ObservedRun, read_observed, read_tracked
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers.inspector import JobInspector, ListedJob
from hpc_agent.telemetry.spool import Spool
from hpc_agent.tracking.tracked_jobs import TrackedJob
from hpc_agent.tracking.tracked_records import TrackedRoot
from hpc_agent.watcher.identity import ExpectedJob, own_records
from hpc_agent.wire.task_state import JOB_ID, JOB_PROPERTY

_TAIL_BYTES = 128 * 1024
_LONG_AGO = timedelta(days=365)
"""Where nothing tells when a job was submitted; the newest one of its number is meant."""


NO_EVIDENCE = ExitEvidence()


class QueuePlace(msgspec.Struct, frozen=True):
    """Place of a task in a queue, counted from 1."""

    queue: str
    number: int
    length: int
    served: bool
    """A daemon that shares our ``hpc.root`` was started for this queue and may be running."""


class TaskFacts(msgspec.Struct, frozen=True):
    task: Task
    place: QueuePlace | None = None
    run: ObservedRun | None = None
    """Its newest run directory."""
    tracked: TrackedJob | None = None
    """While ``hpc-agent sbatch`` follows its job."""
    jobs: tuple[ListedJob, ...] = ()
    """Those of its jobs that the scheduler lists."""
    record: JobRecord | None = None
    """How its job ended."""
    evidence: ExitEvidence = NO_EVIDENCE
    console: str = ""
    """Its end."""
    page: str = ""
    scheduler_is_silent: bool = False
    """It was asked for its jobs, and did not answer."""
    notes: tuple[str, ...] = ()
    """Who did not answer, a sentence each."""

    @property
    def job(self) -> str:
        """Number of its last job; empty if it had none."""
        if self.jobs:
            return self.tracked.job.id if self.tracked else self.jobs[0].job.id
        own = self.tracked.job.id if self.tracked else (self.run.files.job if self.run else None)
        return own or str(self.task.runtime.get(JOB_ID) or "")

    @property
    def job_is_missing(self) -> bool:
        """Whether it was submitted in an attempt that is not over, and the scheduler lists no job of it."""
        files = self.run.files if self.run else None
        if files is None or files.settled or self.jobs:
            return False
        is_back = files.report is not None and files.report.status == "again"
        return (files.submission is not None or files.claim is not None) and not is_back

    @property
    def is_rejected(self) -> bool:
        """Whether the daemon itself took it off its queue: it has had no job."""
        claim = self.run.files.claim if self.run else None
        return claim is not None and claim.owner.startswith("daemon:")

    @property
    def is_script(self) -> bool:
        """Whether it is a person's own script, submitted with ``hpc-agent sbatch``."""
        return self.tracked is not None or (self.run is None and JOB_PROPERTY in self.task.properties)


class FactsReader:
    """Reader of one task after the other; queues and jobs are listed once for all.

    ``served``: names or ids of the queues that daemons were started for.
    """

    def __init__(
        self,
        client: Client,
        views: TaskViews,
        inspector: JobInspector,
        runs: RunsFolder,
        tracked: TrackedRoot,
        served: Collection[str],
        clock: Clock,
    ) -> None:
        self._client = client
        self._views = views
        self._inspector = inspector
        self._runs = runs
        self._tracked = tracked
        self._served = served
        self._clock = clock

    def read(self, id: TaskId) -> TaskFacts:
        """
        Raises:
            NotFoundError: there is no such task.
            ServerUnreachableError: the server does not answer; without its status nothing can be said.
        """
        notes: list[str] = []
        task = self._client.tasks.get(id)
        run = newest_run(self._runs, id)
        tracked = read_tracked(self._tracked.of(id))
        facts = TaskFacts(task, self._place(id), run, tracked, self._jobs(id, run, tracked, notes))
        is_silent = bool(notes)
        record = None if facts.jobs or not facts.job else self._record(facts, notes)
        return TaskFacts(
            task=task,
            place=facts.place,
            run=run,
            tracked=tracked,
            jobs=facts.jobs,
            record=record,
            evidence=exit_evidence(run.directory) if run else NO_EVIDENCE,
            console=self._console(id, run),
            page=self._client.task_page(id, task.project),
            scheduler_is_silent=is_silent,
            notes=tuple(notes),
        )

    def _place(self, task: TaskId) -> QueuePlace | None:
        for queue in self._queues:
            for number, entry in enumerate(queue.entries, start=1):
                if entry.task == task:
                    served = queue.name in self._served or queue.id in self._served
                    return QueuePlace(queue.name, number, len(queue.entries), served)
        return None

    def _jobs(
        self, task: TaskId, run: ObservedRun | None, tracked: TrackedJob | None, notes: list[str]
    ) -> tuple[ListedJob, ...]:
        if isinstance(self._listed, SchedulerUnavailableError):
            notes.append(f"The scheduler did not answer, so that nothing is known of the job now ({self._listed})")
            return ()
        return jobs_of(task, run, tracked, self._listed)

    @cached_property
    def _queues(self) -> Sequence[Queue]:
        return self._views.queues()

    @cached_property
    def _listed(self) -> Sequence[ListedJob] | SchedulerUnavailableError:
        try:
            return self._inspector.listed()
        except SchedulerUnavailableError as error:
            return error

    def _record(self, facts: TaskFacts, notes: list[str]) -> JobRecord | None:
        job = JobId(facts.job)
        try:
            found = own_records(self._inspector.scheduler, {job: self._expected(facts)})
        except SchedulerUnavailableError as error:
            notes.append(f"The scheduler did not say how job {job} ended ({error})")
            return None
        record = found.get(job)
        return record if record is not None and record.state.is_final else None

    def _expected(self, facts: TaskFacts) -> ExpectedJob:
        if facts.tracked is not None:
            return facts.tracked.plan.expected(confirmed=facts.tracked.job.known)
        if facts.run is not None:
            submission = facts.run.files.submission
            at = submission.at if submission else self._clock.now() - _LONG_AGO
            return ExpectedJob(facts.run.directory.attempt.job_name, at, confirmed=True, has_unique_name=True)
        return ExpectedJob("", self._clock.now() - _LONG_AGO, confirmed=True)

    def _console(self, task: TaskId, run: ObservedRun | None) -> str:
        with suppress(OSError):
            if run is not None and (text := local_console_end(run.directory)):
                return text
        with suppress(ApiError, ServerUnreachableError):
            return self._views.console_end(task).text
        return ""


def newest_run(runs: RunsFolder, task: TaskId) -> ObservedRun | None:
    """The run directory of the task's last attempt that can be read."""
    found = [run for directory in runs.attempts(task) if (run := read_observed(directory))]
    return max(found, key=_submitted, default=None)


def _submitted(run: ObservedRun) -> tuple[bool, datetime | float]:
    record = run.files.submission or run.files.claim or run.files.staging
    return (record is not None, record.at.timestamp() if record else 0.0)


def jobs_of(
    task: TaskId, run: ObservedRun | None, tracked: TrackedJob | None, listed: Sequence[ListedJob]
) -> tuple[ListedJob, ...]:
    """The task's own jobs among those that are listed: by their names, or by the ids that were written down."""
    if tracked is not None:
        expected = tracked.plan.expected(confirmed=tracked.job.known)
        return tuple(
            listed_job
            for listed_job in listed
            if (live := listed_job.job).id.partition("+")[0] in tracked.jobs
            and (expected.carries_name(live.name, live.submitted) or expected.is_renamed(live))
        )
    known = run.files.job if run is not None and run.files.is_job_known else None
    return tuple(listed_job for listed_job in listed if _is_of(task, listed_job.job, known))


def _is_of(task: TaskId, job: LiveJob, known: JobId | None) -> bool:
    attempt = parse_job_name(job.name)
    return attempt.task == task if attempt is not None else job.id == known


def local_console_end(directory: RunDirectory) -> str:
    """The end of the newest console that is on disk; empty if there is none."""
    consoles = directory.consoles()
    if not consoles:
        return ""
    spool = Spool(consoles[-1].text, consoles[-1].mark)
    return spool.read(max(spool.size() - _TAIL_BYTES, 0), _TAIL_BYTES).decode("utf-8", "replace")
