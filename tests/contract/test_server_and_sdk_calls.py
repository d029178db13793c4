"""What the newest clearml SDK can call, and programs of it that depend on how the server answers."""

from __future__ import annotations

import pytest
from sdk_programs import SdkPrograms

from hpc_agent.server.left_out import LEFT_OUT, is_left_out
from hpc_agent.server.listing import OPTIONS
from hpc_agent.server.services import ENDPOINTS
from hpc_agent.server.services.projects import OPTIONS as PROJECT_OPTIONS
from hpc_agent.server.services.queues import OPTIONS as QUEUE_OPTIONS
from hpc_agent.server.store.schema import DOCUMENTS

pytestmark = pytest.mark.peers

LIST_CALLS = """
    import importlib, inspect, json, pkgutil
    import clearml.backend_api.services as services
    calls = {}
    for found in pkgutil.walk_packages(services.__path__, services.__name__ + "."):
        if ".v2_" not in found.name:
            continue
        for _, kind in inspect.getmembers(importlib.import_module(found.name), inspect.isclass):
            if getattr(kind, "_service", None) and getattr(kind, "_action", None) and kind.__name__.endswith("Request"):
                fields = sorted((getattr(kind, "_schema", None) or {}).get("properties", {}))
                calls[kind._service + "." + kind._action] = fields
    print(json.dumps(calls))
"""


def test_every_call_of_the_sdk_is_answered_or_left_out_for_a_reason(program: SdkPrograms) -> None:
    calls = program(LIST_CALLS)
    assert len(calls) > 150
    assert [name for name in sorted(calls) if name not in ENDPOINTS and not is_left_out(name)] == []
    stars = {f"{name.partition('.')[0]}.*" for name in calls} | set(calls)
    assert {"datasets.*", "frames.*", "tasks.share"} <= set(LEFT_OUT) & stars


@pytest.mark.parametrize("service", ["tasks", "models", "projects", "queues", "users"])
def test_every_field_of_the_sdks_lists_is_a_filter_or_an_option(program: SdkPrograms, service: str) -> None:
    fields = program(LIST_CALLS).get(f"{service}.get_all", [])
    (table,) = (table for table in DOCUMENTS if table.name == service)
    # The SDK's own schema still has a field of Hyper-Datasets' tasks.
    known = {*table.fields, *OPTIONS, *PROJECT_OPTIONS, *QUEUE_OPTIONS, "_all_", "_any_", "input"}
    assert [name for name in fields if name.partition(".")[0] not in known] == []


def test_a_pipeline_of_decorated_functions_runs(program: SdkPrograms) -> None:
    found = program(
        """
        import json
        from clearml import PipelineDecorator

        @PipelineDecorator.component(return_values=["z"])
        def add(a, b):
            return a + b

        @PipelineDecorator.pipeline(name="decorated", project="of pipelines", version="0.1")
        def run():
            print(json.dumps({"sum": int(str(add(1, 2)))}), flush=True)

        PipelineDecorator.debug_pipeline()
        run()
        """
    )
    assert found == {"sum": 3}


def test_tasks_and_models_are_deleted_by_the_sdk(program: SdkPrograms) -> None:
    found = program(
        """
        import json
        from clearml import Model, OutputModel, Task
        task = Task.init("of deletion", "maker", auto_connect_frameworks=False, auto_resource_monitoring=False)
        open("weights.bin", "wb").write(b"x")
        model = OutputModel(task=task, name="a model")
        model.update_weights("weights.bin", auto_delete_file=False)
        task.flush(wait_for_uploads=True)
        id = task.id
        task.close()
        removed = Model.remove(model.id)
        left = [found.id for found in Task.get_task(id).models["output"]]
        print(json.dumps({
            "removed": bool(removed),
            "left": left,
            "deleted": bool(Task.get_task(id).delete()),
            "fresh": bool(Task.create("of deletion", "fresh").delete()),
        }))
        """
    )
    assert found == {"removed": True, "left": [], "deleted": True, "fresh": True}


def test_tags_exclude_and_a_minimizing_order_ranks_as_on_clearmls_server(program: SdkPrograms) -> None:
    found = program(
        """
        import json
        from clearml import Task
        from clearml.automation.optimization import Objective
        names = {}
        for name, tags, loss in (("none", ["a"], None), ("low", ["a", "b"], 0.1), ("high", ["a"], 0.9)):
            task = Task.create("of lists", name)
            task.set_tags(tags)
            if loss is not None:
                task.mark_started()
                task.get_logger().report_scalar("loss", "val", value=loss, iteration=1)
                task.flush(wait_for_uploads=True)
            names[task.id] = name
        parent = Task.create("of lists", "parent")
        for id in names:
            Task.get_task(id).set_parent(parent)
        best = Objective("loss", "val", order="min").get_top_tasks(top_k=2, optimizer_task_id=parent.id)
        print(json.dumps({
            "tags": sorted(task.name for task in Task.get_tasks(project_name="of lists", tags=["a", "-b"])),
            "best": [names[task.id] for task in best],
        }))
        """
    )
    assert found == {"tags": ["high", "none"], "best": ["low", "high"]}


def test_a_trigger_fires_for_what_is_new_alone(program: SdkPrograms) -> None:
    found = program(
        """
        import json, time
        from clearml import Task
        from clearml.automation import TriggerScheduler
        seen = []
        def fail(name):
            task = Task.create("of triggers", name)
            task.mark_started(force=True)
            task.mark_failed(force=True)
            return task.id
        fail("old")
        scheduler = TriggerScheduler()
        scheduler.add_task_trigger(
            schedule_function=seen.append, trigger_project="of triggers", trigger_on_status=["failed"], name="t"
        )
        scheduler._step()
        before = len(seen)
        new = fail("new")
        for _ in range(60):
            scheduler._step()
            if seen:
                break
            time.sleep(0.5)
        print(json.dumps({"before": before, "new": seen == [new]}))
        """
    )
    assert found == {"before": 0, "new": True}


def test_an_api_client_makes_calls_about_many(program: SdkPrograms) -> None:
    found = program(
        """
        import json
        from clearml.backend_api.session.client import APIClient
        client = APIClient()
        tasks = [client.tasks.create(name=name, type="training").id for name in ("one task", "two task")]
        queued = client.tasks.enqueue_many(ids=tasks, queue_name="of the client")
        dequeued = client.tasks.dequeue_many(ids=tasks)
        moved = client.tasks.move(ids=tasks, project_name="of the client")
        deleted = client.tasks.delete_many(ids=[*tasks, "none"])
        print(json.dumps({
            "queued": len(queued.succeeded),
            "dequeued": len(dequeued.succeeded),
            "deleted": [len(deleted.succeeded), len(deleted.failed)],
        }))
        """
    )
    assert found == {"queued": 2, "dequeued": 2, "deleted": [2, 1]}
