"""The batch job of a task, as far as its runtime and user properties tell: its number, its node, what it used."""

from __future__ import annotations

from collections.abc import Mapping

from hpc_agent.domain import efficiency
from hpc_agent.domain.efficiency import ADVICE, JOB, PREFIX, Used
from hpc_agent.server.page.page_request import Json
from hpc_agent.wire.task_state import HOST, JOB_ID, JOB_PROPERTY

_ROWS = (
    ("cpus", "CPUs in use, on average"),
    ("memory", "Memory, the most in use"),
    ("gpus", "GPUs busy, on average"),
    ("gpu_memory", "Memory of one GPU, the most in use"),
)
_TIME = "Run time, of the time limit"
_RESOURCES = (
    *(
        "num_gpus",
        "gpu_type",
        "num_cpus",
        "cpus",
        "memory_gb",
        "num_nodes",
        "time_limit",
        "partition",
        "account",
        "qos",
    ),
)
"""User properties that ask for something of the job."""


def job_values(task: Json) -> Json:
    """What the tab of the job shows; amounts are shares from 0 to 1 for meters."""
    section = (task.get("hyperparams") or {}).get("properties") or {}
    properties = {name: str(item.get("value") or "") for name, item in section.items()}
    runtime = task.get("runtime") or {}
    asked = {name: value for name, value in properties.items() if name in _RESOURCES and value}
    return {
        "job_number": str(runtime.get(JOB_ID) or properties.get(JOB_PROPERTY) or ""),
        "job_host": str(runtime.get(HOST) or ""),
        "measured_job": properties.get(JOB, ""),
        "meters": _meters(properties),
        "advice": [part for part in properties.get(ADVICE, "").split("; ") if part],
        "asked": asked,
    }


def _meters(properties: Mapping[str, str]) -> list[Json]:
    found = efficiency.from_properties(properties)
    if found is None:
        return []
    amounts: list[tuple[str, str, Used | None]] = [
        (title, properties.get(PREFIX + name, ""), getattr(found, name)) for name, title in _ROWS
    ]
    amounts.append((_TIME, properties.get(f"{PREFIX}time", ""), found.seconds))
    return [
        {"title": title, "text": text, "share": None if used.ratio is None else round(min(used.ratio, 1.0), 3)}
        for title, text, used in amounts
        if used is not None
    ]
