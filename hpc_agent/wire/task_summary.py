"""Summary of a task for a table: a few fields of ClearML's task object → ``TaskSummary``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hpc_agent.domain.ids import QueueId, TaskId, is_id
from hpc_agent.wire.task_fields import section
from hpc_agent.wire.task_state import JOB_ID, TaskState, state_from_wire


def _key(name: str) -> str:
    """ClearML's key of a metric or variant among a task's last metrics."""
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


_GPU, _MACHINE = _key(":monitor:gpu"), _key(":monitor:machine")
"""Metrics that the SDK's resource monitor reports."""
SUMMARY_FIELDS = (
    *("id", "name", "project", "status", "status_message", "status_reason", "status_changed", "started"),
    *("last_worker", "last_worker_report", "execution.queue", f"runtime.{JOB_ID}"),
    *(f"last_metrics.{_GPU}", f"last_metrics.{_MACHINE}"),
)
"""What ``tasks.get_all`` is asked for, so that ``summary_from_wire`` understands the answer."""


class TaskSummary(msgspec.Struct, frozen=True):
    """Task as a table shows it. Percentages are the last that the SDK reported; None: it reported none."""

    id: TaskId
    name: str
    state: TaskState
    queue: QueueId | None = None
    job: str = ""
    """The job that runs, or ran, it."""
    changed: str = ""
    """When its status changed, as the server writes times."""
    gpu_percent: float | None = None
    cpu_percent: float | None = None


def summary_query(tasks: Sequence[TaskId]) -> dict[str, Any]:
    """``tasks.get_all``: summaries of at most 500 tasks."""
    fields = list(SUMMARY_FIELDS)
    return {"id": list(tasks), "only_fields": fields, "search_hidden": True, "page": 0, "page_size": 500}


def summary_from_wire(task: Mapping[str, Any]) -> TaskSummary | None:
    """None: it has no valid id."""
    if not is_id(task.get("id")):
        return None
    queue = section(task, "execution").get("queue")
    metrics = section(task, "last_metrics")
    gpus = [value for name, value in _values(metrics, _GPU) if name.endswith("_utilization")]
    cpus = [value for name, value in _values(metrics, _MACHINE) if name == "cpu_usage"]
    return TaskSummary(
        id=TaskId(str(task["id"])),
        name=str(task.get("name") or ""),
        state=state_from_wire(task),
        queue=QueueId(queue) if is_id(queue) and isinstance(queue, str) else None,
        job=str(section(task, "runtime").get(JOB_ID) or ""),
        changed=str(task.get("status_changed") or ""),
        gpu_percent=sum(gpus) / len(gpus) if gpus else None,
        cpu_percent=cpus[0] if cpus else None,
    )


def _values(metrics: Mapping[str, Any], metric: str) -> list[tuple[str, float]]:
    """Variants of a metric with their last values."""
    variants = section(metrics, metric).values()
    rows = [variant for variant in variants if isinstance(variant, Mapping)]
    return [
        (str(row.get("variant")), float(row["value"])) for row in rows if isinstance(row.get("value"), (int, float))
    ]
