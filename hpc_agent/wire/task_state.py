"""State of a running task: the fields of ClearML's task object that change while it runs → ``TaskState``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from hpc_agent.domain.status import TaskStatus
from hpc_agent.wire.task_fields import section, status_from_wire

RUN_TOKEN = "_hpc_agent_run"  # noqa: S105 - the name of a field
"""Runtime property of ours: ``<attempt>.<start>`` of the run that owns the task, a fencing token."""
JOB_ID = "_slurm_job_id"
JOB_PROPERTY = "slurm_job_id"
"""User property of a person's own script: the number of its job."""
HOST = "_exec_agent_hostname"
"""Runtime properties that ClearML's web page shows: the job that runs the task, and its machine."""
_ABORT_TIMEOUT = "_abort_callback_timeout"
_ABORT_POLL = "_abort_poll_freq"
_ABORT_DONE = "_abort_callback_completed"
"""Runtime properties with which the SDK asks for time after an abort.

See docs/internals/clearml-protocol.md#abort-callback.
"""

STATE_FIELDS = (
    "id",
    "status",
    "status_message",
    "status_reason",
    "status_changed",
    "runtime",
    "last_worker",
    "last_worker_report",
)
"""What ``tasks.get_all`` is asked for, so that ``state_from_wire`` understands the answer."""


class TaskState(msgspec.Struct, frozen=True):
    """The part of a task that changes while it runs."""

    status: TaskStatus
    message: str
    reason: str
    runtime: Mapping[str, Any]
    last_worker: str = ""
    """The agent that has reported to run it since its status last changed; empty if none has."""

    @property
    def abort_requested(self) -> bool:
        """``tasks.stop`` on a running task sets its status message (docs/internals/clearml-protocol.md#abort)."""
        return self.status is TaskStatus.IN_PROGRESS and "stopping" in self.message.lower()

    @property
    def run_token(self) -> str:
        """Which of our runs owns the task (``<attempt>.<start>``), as its executor wrote it; empty if none."""
        return str(self.runtime.get(RUN_TOKEN) or "")

    @property
    def abort_callback_seconds(self) -> float:
        """Seconds that the task asks for between an abort and its end; 0 without an abort callback."""
        if self.abort_callback_done:
            return 0.0
        timeout = _number(self.runtime.get(_ABORT_TIMEOUT))
        return timeout + _number(self.runtime.get(_ABORT_POLL)) if timeout > 0 else 0.0

    @property
    def abort_callback_done(self) -> bool:
        return bool(_number(self.runtime.get(_ABORT_DONE)))


def state_from_wire(task: Mapping[str, Any]) -> TaskState:
    """The state in a task object; ``UNKNOWN`` status if it has none that this version knows."""
    # Both times are the server's. An older report is of a run before this one.
    reported, changed = str(task.get("last_worker_report") or ""), str(task.get("status_changed") or "")
    return TaskState(
        status_from_wire(task.get("status")),
        str(task.get("status_message") or ""),
        str(task.get("status_reason") or ""),
        section(task, "runtime"),
        str(task.get("last_worker") or "") if reported >= changed else "",
    )


def _number(value: object) -> float:
    """A runtime property as a number: the SDK writes numbers, their texts and booleans; 0 for anything else."""
    if isinstance(value, bool):
        return float(value)
    try:
        number = float(str(value))
    except ValueError:
        return float(str(value).lower() == "true")
    return 0.0 if math.isnan(number) else number
