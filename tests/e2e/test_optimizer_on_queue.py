"""The SDK's optimizers: their jobs run from a queue that the daemon serves, and are ranked by what they reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_site import Site
from sdk_programs import SdkPrograms

from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.peers

STEP = """
from clearml import Task
task = Task.init(auto_resource_monitoring=False)
given = {"width": 1, "depth": 1}
task.connect(given)
task.get_logger().report_scalar("loss", "val", 1 / int(given["width"]), 1)
"""

OPTIMIZER = """
import json
from clearml import Task
from clearml.automation import {search}, DiscreteParameterRange, HyperParameterOptimizer
task = Task.init("of optimizers", "{search}", task_type=Task.TaskTypes.optimizer, auto_resource_monitoring=False)
optimizer = HyperParameterOptimizer(
    base_task_id="{step}",
    hyper_parameters=[DiscreteParameterRange("General/width", values=[1, 2, 4])],
    objective_metric_title="loss",
    objective_metric_series="val",
    objective_metric_sign="min",
    execution_queue="{queue}",
    max_number_of_concurrent_tasks=2,
    optimizer_class={search},
    pool_period_min=0.02,
    total_max_jobs=3,
)
optimizer.set_report_period(0.05)
optimizer.start()
optimizer.wait()
best = optimizer.get_top_experiments_details(top_k=3)
jobs = [Task.get_task(job["task_id"]) for job in best]
optimizer.stop()
print(json.dumps({{
    "parent": task.id,
    "jobs": [job.id for job in jobs],
    "widths": [int(job["hyper_parameters"]["General/width"]) for job in best],
    "parents": [job.parent for job in jobs],
}}))
"""


@pytest.mark.parametrize("search", ["GridSearch", "RandomSearch"])
def test_jobs_of_an_optimizer_run_from_the_queue(machine: Site, peers: Path, search: str) -> None:
    machine.daemon()
    step = machine.bare_task(STEP, enqueue=False, requirements={"pip": "clearml"})
    program = SdkPrograms(peers, dict(machine.env), machine.folder)
    found = program(OPTIMIZER.format(search=search, step=step, queue=machine.queue))
    assert sorted(found["widths"], reverse=True) == found["widths"] and found["widths"]
    assert set(found["parents"]) == {found["parent"]}
    if search == "GridSearch":
        assert found["widths"] == [4, 2, 1]
    # A random search may draw the same width again, and then runs no second job for it.
    assert len(set(found["jobs"])) == len(found["jobs"])
    assert {machine.wait_for_end(job) for job in found["jobs"]} == {TaskStatus.COMPLETED}
