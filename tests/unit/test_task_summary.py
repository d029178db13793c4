"""Summary of a task from the fields that ``tasks.get_all`` is asked for."""

from __future__ import annotations

import hashlib

from hpc_agent.domain.status import TaskStatus
from hpc_agent.wire.task_summary import SUMMARY_FIELDS, summary_from_wire

ID = "a" * 32


def metrics(metric: str, **values: float) -> dict[str, object]:
    """As a server keeps the last values of a metric: by the MD5 of its name and of its variants'."""

    def key(name: str) -> str:
        return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()

    variants = {key(name): {"metric": metric, "variant": name, "value": value} for name, value in values.items()}
    return {key(metric): variants}


def test_usage_is_the_mean_over_gpus_and_the_machines_cpu() -> None:
    last = {
        **metrics(":monitor:gpu", gpu_0_utilization=90, gpu_1_utilization=70, gpu_0_mem_usage=99),
        **metrics(":monitor:machine", cpu_usage=12.5, memory_used_gb=3),
    }
    found = summary_from_wire({"id": ID, "name": "train", "status": "in_progress", "last_metrics": last})
    assert found is not None
    assert (found.gpu_percent, found.cpu_percent) == (80.0, 12.5)
    assert (found.name, found.state.status) == ("train", TaskStatus.IN_PROGRESS)
    assert all(f"last_metrics.{key}" in SUMMARY_FIELDS for key in last)


def test_what_is_missing_or_odd_is_not_known() -> None:
    bare = summary_from_wire({"id": ID})
    assert bare is not None
    assert (bare.name, bare.queue, bare.job, bare.gpu_percent, bare.cpu_percent) == ("", None, "", None, None)
    odd = summary_from_wire(
        {"id": ID, "execution": {"queue": 7}, "runtime": None, "last_metrics": {"x": 1}, "name": None}
    )
    assert odd is not None and odd.queue is None
    assert summary_from_wire({"id": "../x"}) is None
