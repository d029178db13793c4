"""Whole workflows of the clearml SDK and of ClearML's own commands, which read back what they wrote."""

from __future__ import annotations

import json
import textwrap

import pytest
from http_api import Api
from sdk_programs import SdkPrograms

pytestmark = pytest.mark.peers

STEP = """
    from clearml import Task
    task = Task.init("of steps", "step", auto_connect_frameworks=False, auto_resource_monitoring=False)
    width = task.connect({"width": 2})["width"]
    task.get_logger().report_scalar("loss", "val", value=1 / int(width), iteration=1)
    task.upload_artifact("area", int(width) ** 2, wait_on_upload=True)
    task.close()
"""


@pytest.fixture(scope="module")
def step(program: SdkPrograms) -> str:
    """The id of a task that was run once: the base of others."""
    (program.home / "step.py").write_text(textwrap.dedent(STEP), encoding="utf-8")
    program.command("python", "step.py")
    found = program(
        """
        import json
        from clearml import Task
        print(json.dumps({"id": Task.get_task(project_name="of steps", task_name="step").id}))
        """
    )
    return str(found["id"])


def test_a_pipeline_of_functions_hands_results_on(program: SdkPrograms) -> None:
    found = program(
        """
        import json
        from clearml import PipelineController, Task

        def double(number):
            return 2 * number

        def add(number, other):
            return number + other

        pipe = PipelineController(name="of functions", project="of pipelines", version="1.0")
        pipe.add_function_step("double", double, {"number": 4}, function_return=["doubled"])
        pipe.add_function_step("add", add, {"number": "${double.doubled}", "other": 1}, function_return=["total"])
        pipe.start_locally(run_pipeline_steps_locally=True)
        steps = {task.name: task for task in Task.get_tasks(task_name="^(double|add)$")}
        print(json.dumps({
            "statuses": {name: task.get_status() for name, task in steps.items()},
            "total": steps["add"].get_parameters(cast=True)["return/total"],
            "parents": len({task.parent for task in steps.values()}),
        }))
        """
    )
    assert found == {"statuses": {"double": "completed", "add": "completed"}, "total": 9, "parents": 1}


def test_a_pipeline_of_tasks_clones_them_with_its_parameters(program: SdkPrograms, step: str, api: Api) -> None:
    found = program(
        f"""
        import json
        from clearml import PipelineController
        pipe = PipelineController(name="of tasks", project="of pipelines", version="1.0")
        for name, width in (("first", 3), ("second", 4)):
            parents = [] if name == "first" else ["first"]
            overrides = {{"General/width": width}}
            pipe.add_step(name=name, base_task_id="{step}", parents=parents, parameter_override=overrides)
        pipe.start_locally(run_pipeline_steps_locally=True)
        print(json.dumps({{"successful": pipe.is_successful(), "controller": pipe.task.id}}))
        """
    )
    assert found["successful"]
    tasks = api("tasks.get_all", parent=found["controller"], order_by=["created"], search_hidden=True)["tasks"]
    assert [task["status"] for task in tasks] == ["completed", "completed"]
    assert [task["hyperparams"]["General"]["width"]["value"] for task in tasks] == ["3", "4"]
    curves = [api("events.scalar_metrics_iter_histogram", task=task["id"])["loss"]["val"]["y"] for task in tasks]
    assert curves == [[pytest.approx(1 / 3)], [0.25]]
    controller = api("tasks.get_by_id", task=found["controller"])["task"]
    assert (controller["type"], controller["status"]) == ("controller", "completed")


def test_an_optimizer_ranks_the_jobs_that_it_ran(program: SdkPrograms, step: str) -> None:
    found = program(
        f"""
        import json
        from clearml import Task
        from clearml.automation import DiscreteParameterRange, GridSearch, HyperParameterOptimizer
        task = Task.init("of optimizers", "grid", task_type=Task.TaskTypes.optimizer, auto_resource_monitoring=False)
        optimizer = HyperParameterOptimizer(
            base_task_id="{step}",
            hyper_parameters=[DiscreteParameterRange("General/width", values=[1, 2, 5])],
            objective_metric_title="loss",
            objective_metric_series="val",
            objective_metric_sign="min",
            max_number_of_concurrent_tasks=1,
            optimizer_class=GridSearch,
            pool_period_min=0.02,
            total_max_jobs=3,
        )
        optimizer.set_report_period(0.05)
        optimizer.start_locally()
        optimizer.wait()
        best = optimizer.get_top_experiments_details(top_k=2)
        optimizer.stop()
        print(json.dumps({{"widths": [job["hyper_parameters"]["General/width"] for job in best]}}))
        """
    )
    assert found == {"widths": ["5", "2"]}


def test_the_life_of_a_data_set(program: SdkPrograms) -> None:
    found = program(
        """
        import json
        from pathlib import Path
        from clearml import Dataset
        for name, text in (("one.txt", "1"), ("two.txt", "2")):
            Path("files").mkdir(exist_ok=True)
            Path("files", name).write_text(text)
        first = Dataset.create(dataset_project="of data", dataset_name="numbers", dataset_version="1.0")
        first.add_files("files")
        first.upload()
        first.finalize()
        Path("files", "three.txt").write_text("3")
        second = Dataset.create(
            dataset_project="of data", dataset_name="numbers", dataset_version="2.0", parent_datasets=[first.id]
        )
        second.sync_folder("files")
        second.upload()
        second.finalize()
        copy = Dataset.get(dataset_project="of data", dataset_name="numbers").get_local_copy()
        listed = Dataset.list_datasets(dataset_project="of data")
        Dataset.delete(dataset_id=second.id, force=True)
        print(json.dumps({
            "files": sorted(path.name for path in Path(copy).glob("*.txt")),
            "versions": sorted(item["version"] for item in listed),
            "left": [item["version"] for item in Dataset.list_datasets(dataset_project="of data")],
        }))
        """
    )
    assert found == {
        "files": ["one.txt", "three.txt", "two.txt"],
        "versions": ["1.0", "2.0"],
        "left": ["1.0"],
    }


def test_clearml_data_makes_and_brings_back_a_data_set(program: SdkPrograms) -> None:
    (program.home / "letters").mkdir()
    (program.home / "letters" / "a.txt").write_text("a")
    made = program.command("clearml-data", "create", "--project", "of data", "--name", "letters")
    identifier = made.partition("id=")[2].split()[0].strip(",")
    program.command("clearml-data", "add", "--id", identifier, "--files", "letters")
    program.command("clearml-data", "close", "--id", identifier)
    assert "a.txt" in program.command("clearml-data", "list", "--id", identifier)
    program.command("clearml-data", "get", "--id", identifier, "--copy", "brought")
    assert (program.home / "brought" / "a.txt").read_text() == "a"


def test_clearml_param_search_runs_a_grid(program: SdkPrograms, api: Api) -> None:
    script = """
        import argparse
        from clearml import Task
        parser = argparse.ArgumentParser()
        parser.add_argument("--width", type=int, default=1)
        task = Task.init("of searches", "searched", auto_connect_frameworks=False, auto_resource_monitoring=False)
        task.get_logger().report_scalar("loss", "val", value=1 / parser.parse_args().width, iteration=1)
        task.close()
    """
    (program.home / "searched.py").write_text(textwrap.dedent(script), encoding="utf-8")
    searched = {"name": "Args/width", "type": "DiscreteParameterRange", "values": [2, 4]}
    program.command(
        "clearml-param-search",
        *("--project-name", "of searches", "--task-name", "search", "--script", "searched.py", "--local"),
        *("--params-search", json.dumps(searched), "--optimizer-class", "GridSearch", "--total-max-jobs", "2"),
        *("--objective-metric-title", "loss", "--objective-metric-series", "val", "--objective-metric-sign", "min"),
        *("--max-number-of-concurrent-tasks", "1", "--pool-period-min", "0.02", "--args", "width=1"),
    )
    (search,) = api("tasks.get_all", name="^search$", type=["optimizer"], only_fields=["id"])["tasks"]
    jobs = api("tasks.get_all", parent=search["id"], only_fields=["status", "hyperparams"])["tasks"]
    assert sorted(job["hyperparams"]["Args"]["width"]["value"] for job in jobs) == ["2", "4"]
    assert {job["status"] for job in jobs} == {"completed"}


def test_a_cleanup_deletes_old_archived_tasks_with_their_files(program: SdkPrograms) -> None:
    found = program(
        """
        import json
        from datetime import datetime, timedelta, timezone
        from clearml import Task
        from clearml.backend_api.session.client import APIClient
        for name in ("kept", "old"):
            task = Task.init("of cleanups", name, auto_connect_frameworks=False, auto_resource_monitoring=False)
            task.upload_artifact("result", {"of": name}, wait_on_upload=True)
            url = task.artifacts["result"].url
            task.close()
            if name == "old":
                task.set_archived(True)
        until = datetime.now(timezone.utc) + timedelta(minutes=1)
        archived = APIClient().tasks.get_all(
            project=[task.get_project_id("of cleanups")],
            system_tags=["archived"],
            only_fields=["id"],
            order_by=["-last_change"],
            page_size=10,
            page=0,
            status_changed=[f"<{until:%Y-%m-%dT%H:%M:%S}"],
        )
        deleted = [bool(Task.get_task(found.id).delete(raise_on_error=True)) for found in archived]
        left = [found.name for found in Task.get_tasks(project_name="of cleanups")]
        print(json.dumps({"deleted": deleted, "left": left}))
        """
    )
    assert found == {"deleted": [True], "left": ["kept"]}
