"""Finder of the task that a person means: by its id or the beginning of it, by its job's number, by its name."""

from __future__ import annotations

import re

from hpc_agent.api.client import Client
from hpc_agent.domain.ids import TaskId
from hpc_agent.errors import InputError
from hpc_agent.file_records import CorruptFileError
from hpc_agent.inspection.jobs_observer import read_tracked
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.tracking.tracked_records import TrackedRoot

_ID = re.compile(r"[0-9a-f]{32}")
_PREFIX = re.compile(r"[0-9a-f]{4,31}")
_JOB = re.compile(r"[0-9]{1,19}(_[0-9]{1,19})?")
_SHOWN = 8
"""Tasks that a sentence names."""


class TaskFinder:
    """The beginnings of ids and the numbers of jobs are looked up among the records here, names on the server."""

    def __init__(self, client: Client, runs: RunsFolder, tracked: TrackedRoot) -> None:
        self._client = client
        self._runs = runs
        self._tracked = tracked

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
            return TaskId(plain)
        found = self._of_job(word) if _JOB.fullmatch(word) else set()
        if not found and _PREFIX.fullmatch(plain):
            found = {task for task in self._known() if task.startswith(plain)}
        if len(found) > 1:
            ids = ", ".join(sorted(found)[:_SHOWN])
            raise InputError(f'"{word}" may mean {len(found)} tasks: {ids}; give more of the id')
        if found:
            return found.pop()
        try:
            return self._client.tasks.resolve(word)
        except InputError as error:
            if _JOB.fullmatch(word):
                raise InputError(
                    f"no task here has a job {word}, nor is it a task's id or name; `hpc-agent jobs` lists your tasks"
                ) from error
            raise InputError(f"{error}; `hpc-agent jobs` lists your tasks") from error

    def _known(self) -> set[TaskId]:
        return {*self._runs.tasks(), *(folder.task for folder in self._tracked.all())}

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


def _job_of(directory: RunDirectory) -> str:
    try:
        submission = directory.submission()
    except (CorruptFileError, OSError):
        return ""
    return submission.job if submission else ""
