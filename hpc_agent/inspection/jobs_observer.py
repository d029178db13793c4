"""Observer of all of a user's tasks and jobs at once: one request to the scheduler, a few to the server, the records of
what the scheduler does not list. However many jobs there are, the number of requests to the scheduler stays one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from hpc_agent.api.task_views import TaskViews
from hpc_agent.clock import Clock
from hpc_agent.daemon.run_state import RunDirectoryState
from hpc_agent.daemon.run_state import read as read_run
from hpc_agent.domain.attempt import parse_job_name
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import ApiError, HpcAgentError, SchedulerUnavailableError, ServerUnreachableError
from hpc_agent.file_records import CorruptFileError
from hpc_agent.inspection import task_row
from hpc_agent.inspection.task_row import TaskRow, row_of_jobs
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers.inspector import JobInspector, ListedJob
from hpc_agent.tracking.tracked_jobs import TrackedJob
from hpc_agent.tracking.tracked_records import TrackedDirectory, TrackedRoot
from hpc_agent.wire.task_summary import TaskSummary

_READERS = 8
"""Threads that read records: on a network file system each waits for its server."""


class JobsTable(msgspec.Struct, frozen=True):
    """What one look shows. ``notes``: who did not answer, a sentence each."""

    rows: tuple[TaskRow, ...]
    notes: tuple[str, ...]
    at: datetime


class ObservedRun(msgspec.Struct, frozen=True):
    """Run directory of a task whose job the scheduler does not list."""

    directory: RunDirectory
    files: RunDirectoryState
    settled_at: datetime | None = None


class JobsObserver:
    """``served``: names or ids of queues whose waiting tasks are shown; others are added where a run names them."""

    def __init__(
        self,
        views: TaskViews,
        inspector: JobInspector,
        runs: RunsFolder,
        tracked: TrackedRoot,
        served: Collection[str],
        clock: Clock,
    ) -> None:
        self._views = views
        self._inspector = inspector
        self._runs = runs
        self._tracked = tracked
        self._served = served
        self._clock = clock

    @property
    def has_queues(self) -> bool:
        """Whether there is a queue whose waiting tasks are shown."""
        return bool(self._served)

    def observe(self, *, ended_within: timedelta | None = None) -> JobsTable:
        """``ended_within``: show tasks too that ended so lately.

        Raises:
            ServerUnreachableError, ApiError: neither the server nor the scheduler answered.
        """
        notes: list[str] = []
        now = self._clock.now()
        listed, silence = self._listed()
        if silence is not None:
            notes.append(f"The scheduler did not answer: states of jobs are missing ({silence})")
        with ThreadPoolExecutor(_READERS) as readers:
            rows = {row.task: row for row in _queue_rows(listed)}
            rows |= {row.task: row for row in self._tracked_rows(readers, listed)}
            since = now - ended_within if ended_within is not None else None
            runs = self._unlisted(readers, listed, rows, since)
        rows |= {task: _unlisted_row(task, run) for task, run in runs.items() if task not in rows}
        scripts = self._ended_scripts(since) if since is not None else {}
        try:
            found = self._with_server({**scripts, **rows}, runs, since is not None)
            found = [row for row in found if row.task in rows or row.task not in scripts or row.state in task_row.ENDED]
        except (ServerUnreachableError, ApiError) as error:
            if silence is not None:
                raise
            notes.append(f"The server did not answer: names, queues and what has no job are missing ({error})")
            found = [row for task, row in rows.items() if task not in runs or runs[task].settled_at is None]
        return JobsTable(tuple(task_row.ordered(found)), tuple(notes), now)

    def _listed(self) -> tuple[Sequence[ListedJob], HpcAgentError | None]:
        try:
            return self._inspector.listed(), None
        except SchedulerUnavailableError as error:
            return (), error

    def _tracked_rows(self, readers: ThreadPoolExecutor, listed: Sequence[ListedJob]) -> Iterable[TaskRow]:
        by_id: dict[str, ListedJob] = {}
        for job in listed:
            by_id.setdefault(job.job.id.partition("+")[0], job)
        folders = list(self._tracked.all())
        for folder, tracked in zip(folders, readers.map(read_tracked, folders), strict=True):
            if tracked is not None:
                yield _tracked_row(tracked, [by_id[id] for id in tracked.jobs if id in by_id])
            elif folder.path.is_dir():
                yield TaskRow(folder.task, kind=task_row.SCRIPT, state=task_row.SUBMITTING)

    def _ended_scripts(self, since: datetime) -> dict[TaskId, TaskRow]:
        return {
            task: TaskRow(task, kind=task_row.SCRIPT, job=ended.job, state=task_row.MISSING)
            for task, ended in self._tracked.ended_since(since)
        }

    def _unlisted(
        self,
        readers: ThreadPoolExecutor,
        listed: Sequence[ListedJob],
        rows: Mapping[TaskId, TaskRow],
        ended_since: datetime | None,
    ) -> dict[TaskId, ObservedRun]:
        """The newest run of each task that has no row yet, unless it ended before ``ended_since``."""
        tasks = [task for task in self._runs.tasks() if task not in rows]

        def newest(task: TaskId) -> ObservedRun | None:
            with_ended = ended_since is not None
            found = [run for each in self._runs.attempts(task) if (run := read_observed(each, with_settled=with_ended))]
            wanted = [run for run in found if _is_wanted(run, ended_since)]
            return max(wanted, key=lambda run: (run.settled_at is None, _age(run)), default=None)

        return {task: run for task, run in zip(tasks, readers.map(newest, tasks), strict=True) if run is not None}

    def _with_server(
        self, rows: Mapping[TaskId, TaskRow], runs: Mapping[TaskId, ObservedRun], ended: bool
    ) -> list[TaskRow]:
        """Rows with what the server knows, and a row for each task that waits in a served queue."""
        queues = self._views.queues()
        names = {queue.id: queue.name for queue in queues}
        served = {*self._served, *(run.files.queue for run in runs.values())}
        waiting = _waiting([queue for queue in queues if queue.name in served or queue.id in served])
        summaries = self._views.summaries([*rows, *(task for task in waiting if task not in rows)])
        found: list[TaskRow] = []
        for task, row in rows.items():
            shown = _explained(row, runs.get(task), waiting, summaries.get(task), names)
            if ended or shown.state not in task_row.ENDED:
                found.append(shown)
        for task, row in waiting.items():
            if task not in rows:
                summary = summaries.get(task)
                message = summary.state.message if summary else ""
                found.append(replace(row, name=summary.name if summary else "", why=message or row.why))
        return found


def read_tracked(folder: TrackedDirectory) -> TrackedJob | None:
    """None: sbatch has not named a job of it yet, or its records cannot be read."""
    try:
        plan, job = folder.plan(), folder.job()
        if plan is None or job is None:
            return None
        return TrackedJob(folder, plan, job, folder.sidecar(), folder.start() is not None)
    except (CorruptFileError, OSError):
        return None


def read_observed(directory: RunDirectory, *, with_settled: bool = True) -> ObservedRun | None:
    """None: its records cannot be read, or it is settled and such runs, of which there are many, are not wanted."""
    try:
        files = read_run(directory)
        if not files.settled:
            return ObservedRun(directory, files)
        if not with_settled:
            return None
        settled = directory.settled()
        files = replace(
            files, submission=directory.submission(), claim=directory.claim(), report=directory.exit_report()
        )
        return ObservedRun(directory, files, settled.at if settled else None)
    except (CorruptFileError, OSError):
        return None


def _is_wanted(run: ObservedRun, ended_since: datetime | None) -> bool:
    if not run.files.settled:
        return True
    return ended_since is not None and run.settled_at is not None and run.settled_at >= ended_since


def _age(run: ObservedRun) -> float:
    record = run.files.submission or run.files.claim or run.files.staging
    return record.at.timestamp() if record else 0.0


def _queue_rows(listed: Sequence[ListedJob]) -> Iterable[TaskRow]:
    """Of jobs with our names. Where a task has two, that of an earlier attempt ends while the next one waits."""
    jobs: dict[TaskId, list[ListedJob]] = {}
    for job in listed:
        attempt = parse_job_name(job.job.name)
        if attempt is not None:
            jobs.setdefault(attempt.task, []).append(job)
    for task, found in jobs.items():
        newest = max(found, key=lambda job: (job.job.submitted is not None, job.job.submitted, job.job.id))
        yield row_of_jobs(task, [newest])


def _tracked_row(tracked: TrackedJob, jobs: Sequence[ListedJob]) -> TaskRow:
    task, id = tracked.folder.task, tracked.job.id
    if not jobs:
        return TaskRow(task, kind=task_row.SCRIPT, job=id, state=task_row.MISSING)
    return row_of_jobs(task, jobs, kind=task_row.SCRIPT, job=id)


def _unlisted_row(task: TaskId, run: ObservedRun) -> TaskRow:
    files = run.files
    submission = files.submission
    state = task_row.MISSING
    if submission is None and files.claim is None:
        state = task_row.STAGING
    elif submission is not None and submission.submitted.is_unclear and files.claim is None:
        state = task_row.SUBMITTING
    why = submission.message if submission is not None and state == task_row.SUBMITTING else ""
    return TaskRow(task, job=files.job or "", state=state, why=why, queue=submission.queue_name if submission else "")


def _waiting(queues: Iterable[Queue]) -> dict[TaskId, TaskRow]:
    return {
        entry.task: TaskRow(
            entry.task,
            queue=queue.name,
            state=task_row.QUEUED,
            place=number,
            why=f"number {number} of {len(queue.entries)} in its queue",
        )
        for queue in queues
        for number, entry in enumerate(queue.entries, start=1)
    }


def _explained(
    row: TaskRow,
    run: ObservedRun | None,
    waiting: Mapping[TaskId, TaskRow],
    summary: TaskSummary | None,
    names: Mapping[QueueId, str],
) -> TaskRow:
    """The row with what the server says of its task."""
    entry = waiting.get(row.task)
    queue = entry.queue if entry else row.queue
    if summary is None:
        return replace(row, queue=queue, why=row.why or "its task is not on the server")
    if not queue and summary.queue is not None:
        queue = names.get(summary.queue, "")
    shown = replace(
        row, name=summary.name, queue=queue, gpu_percent=summary.gpu_percent, cpu_percent=summary.cpu_percent
    )
    if run is None and row.state != task_row.MISSING:
        return shown
    return _without_job(shown, entry, summary)


def _without_job(row: TaskRow, entry: TaskRow | None, summary: TaskSummary) -> TaskRow:
    """Of a task whose job is not listed: the server knows more about it."""
    status = summary.state.status
    if status.is_final:
        state = status.value if status is not TaskStatus.PUBLISHING else TaskStatus.PUBLISHED.value
        return replace(row, state=state, why=summary.state.reason or summary.state.message, ended=summary.changed)
    if entry is not None and row.state == task_row.MISSING:
        return replace(row, state=task_row.QUEUED, why=summary.state.message or entry.why, job="")
    if row.state == task_row.MISSING and not row.job and status is TaskStatus.IN_PROGRESS:
        return replace(row, state=task_row.RUNNING, why=f"without a job, by {summary.state.last_worker or 'an agent'}")
    return replace(row, why=row.why or summary.state.message)
