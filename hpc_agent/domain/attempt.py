"""An attempt: one queue entry's way through one cluster, named without any database (docs/architecture.md#attempts)."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from hpc_agent.domain.ids import AttemptId, QueueId, TaskId

_PREFIX = "clearml_task_"
_STAGING_PREFIX = "clearml_stage_"
_NAME = re.compile(rf"{_PREFIX}(?P<task>[0-9A-Za-z][0-9A-Za-z_-]*)_(?P<attempt>[0-9a-f]{{8}})")


class Attempt(NamedTuple):
    """A key of many tables: a named tuple, whose hash costs a fifth of a dataclass's."""

    task: TaskId
    id: AttemptId

    @property
    def job_name(self) -> str:
        """The one key that squeue and sacct both always have. 54 characters for a 32-digit task id."""
        return f"{_PREFIX}{self.task}_{self.id}"

    @property
    def staging_job_name(self) -> str:
        """Name of the job that stages for the attempt."""
        return f"{_STAGING_PREFIX}{self.task}_{self.id}"


def attempt_for(cluster: str, queue: QueueId, task: TaskId, added: str) -> Attempt:
    """The attempt of a queue entry: the same entry always gives the same id, on whatever login node."""
    digest = hashlib.sha256("\n".join((cluster, queue, task, added)).encode()).hexdigest()
    return Attempt(task, AttemptId(digest[:8]))


def parse_job_name(name: str) -> Attempt | None:
    """The attempt that a job name means, or None if the job is not one of ours."""
    match = _NAME.fullmatch(name)
    return Attempt(TaskId(match["task"]), AttemptId(match["attempt"])) if match else None
