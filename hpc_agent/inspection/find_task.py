"""Finder of the task that a person means: by its id or the beginning of it, by its job's number, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

from hpc_agent.api.client import Client
from hpc_agent.api.task_views import TaskViews
from hpc_agent.domain.ids import TaskId
from hpc_agent.errors import ApiError, InputError
from hpc_agent.file_records import CorruptFileError
from hpc_agent.inspection.jobs_observer import read_tracked
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.tracking.tracked_records import TrackedRoot

_ID = re.compile(r"[0-9a-f]{32}")
_PREFIX = re.compile(r"[0-9a-f]{4,31}")
_JOB = re.compile(r"[0-9]{1,19}(_[0-9]{1,19})?|p[0-9]{1,19}")
"""Of a batch system, an array's element, or a task in a pilot."""
_SHOWN = 8
"""Tasks that a sentence names."""


class TaskFinder:
    """The beginnings of ids and the numbers of jobs are looked up among the records here, names on the server."""

    def __init__(self, client: Client, views: TaskViews, runs: RunsFolder, tracked: TrackedRoot) -> None:
        self._client = client
        self._views = views
        self._runs = runs
        self._tracked = tracked

    def find_own(self, word: str) -> TaskId:
        """As ``find``, for what changes a task: on a server of many people a name may be that of another one's task.

        Raises:
            InputError: as ``find``, or the task of that name belongs to another user.
        """
        task = self.find(word)
        if task.startswith(word.lower().replace("-", "")) or _JOB.fullmatch(word.strip()):
            return task
        identity = self._client.session.claims.get("identity")
        own = identity.get("user") if isinstance(identity, dict) else None
        owner = self._client.tasks.get_object(task).get("user")
        if own and owner and own != owner:
            raise InputError(
                f'the task with the name "{word}" is {task}, which belongs to another user; if it is meant, give its id'
            )
        return task

    def find(self, word: str) -> TaskId:
        """
        Raises:
            InputError: no task is meant, or several.
        """
        word = word.strip()
        plain = word.lower().replace("-", "")
        if not word:
            raise InputError("the task is empty: give its id, the beginning of its id, its job's number, or its name")
        if _ID.fullmatch(plain):
            return self._of_id(TaskId(plain))
        is_job = _JOB.fullmatch(word) is not None
        found = self._of_job(word) if is_job else set()
        if not found and _PREFIX.fullmatch(plain):
            found = _beginning(plain, self._known()) or _beginning(plain, self._queued())
        if not found and is_job:
            found = self._of_job_on_server(word)
        if len(found) > 1:
            ids = ", ".join(sorted(found)[:_SHOWN])
            raise InputError(f'"{word}" may mean {len(found)} tasks: {ids}; give more of the id')
        if found:
            return found.pop()
        try:
            named = self._client.tasks.resolve(word)
        except InputError as error:
            if _JOB.fullmatch(word):
                raise InputError(
                    f"no task here has a job {word}, nor is it a task's id or name; `hpc-agent jobs` lists your tasks"
                ) from error
            raise InputError(f"{error}; `hpc-agent jobs` lists your tasks") from error
        # What looks like an id is one, for the server.
        return self._of_id(named)

    def _of_id(self, task: TaskId) -> TaskId:
        """The server is asked only about what has no records here."""
        is_known = any(self._runs.attempts(task)) or read_tracked(self._tracked.of(task)) is not None
        if is_known or self._client.tasks.get_states([task]):
            return task
        raise InputError(
            f"no task has the id {task}, or none that this account may see; `hpc-agent jobs` lists your tasks"
        )

    def _known(self) -> set[TaskId]:
        return {*self._runs.tasks(), *(folder.task for folder in self._tracked.all())}

    def _queued(self) -> set[TaskId]:
        return {entry.task for queue in self._views.queues() for entry in queue.entries}

    def _of_job_on_server(self, job: str) -> set[TaskId]:
        """The jobs of ``hpc-agent sbatch`` that have ended have no records here any more."""
        with suppress(ApiError):  # a server that cannot search for it
            return {*self._views.of_job(job), *self._views.of_job(job.partition("_")[0])}
        return set()

    def _of_job(self, job: str) -> set[TaskId]:
        """An element of an array means the task of the whole array."""
        array = job.partition("_")[0]
        found = {
            folder.task for folder in self._tracked.all() if (t := read_tracked(folder)) and t.job.id in (job, array)
        }
        for task in self._runs.tasks():
            if any(job == _job_of(directory) for directory in self._runs.attempts(task)):
                found.add(task)
        return found


def _beginning(prefix: str, tasks: Iterable[TaskId]) -> set[TaskId]:
    return {task for task in tasks if task.startswith(prefix)}


def _job_of(directory: RunDirectory) -> str:
    try:
        submission = directory.submission()
    except (CorruptFileError, OSError):
        return ""
    return submission.job if submission else ""
