"""Tasks on the embedded server: statuses, content, lists (docs/internals/clearml-protocol.md#task-object)."""

from __future__ import annotations

from typing import Any

import pytest
from http_api import Api

from hpc_agent.domain.status import TaskStatus, may_follow
from hpc_agent.server.services.task_shapes import EXECUTION, SCRIPT

CALLS = {
    "in_progress": "tasks.started",
    "completed": "tasks.completed",
    "failed": "tasks.failed",
    "stopped": "tasks.stopped",
    "closed": "tasks.close",
    "published": "tasks.publish",
}


def task_in(api: Api, status: str) -> str:
    """A task brought to a status by force."""
    task = api.task(f"is {status}")
    if status == "queued":
        api("tasks.enqueue", task=task, queue_name="somewhere")
    elif status != "created":
        api(CALLS[status], task=task, force=True)
    assert api.status(task) == status
    return task


@pytest.mark.parametrize("old", ["created", "queued", *CALLS])
def test_statuses_follow_one_another_as_the_table_allows(api: Api, old: str) -> None:
    for new, action in CALLS.items():
        task = task_in(api, old)
        answer = api.ask(action, {"task": task, "status_reason": "why", "status_message": "what"})
        if may_follow(TaskStatus(old), TaskStatus(new)):
            assert answer.data["updated"] == 1
            assert answer.data["fields"]["status"] == api.status(task) == new
        else:
            assert answer.code == "400/110"
            assert api.status(task) == old
        assert api.ask(action, {"task": task, "force": True}).status == 200


def test_a_transition_overwrites_reason_and_message(api: Api) -> None:
    task = api.task()
    api("tasks.started", task=task, status_reason="because", status_message="so")
    first = api("tasks.get_by_id", task=task)["task"]
    api("tasks.started", task=task)
    second = api("tasks.get_by_id", task=task)["task"]
    assert (first["status_reason"], first["status_message"]) == ("because", "so")
    assert (second["status_reason"], second["status_message"]) == ("", "")
    assert second["started"] == first["started"]
    assert second["status_changed"] > first["status_changed"]


def test_unknown_tasks_are_400_101(api: Api) -> None:
    for action in ("tasks.get_by_id", "tasks.started", "tasks.edit", "tasks.stop", "tasks.clone", "tasks.enqueue"):
        assert api.ask(action, {"task": "0" * 32}).code == "400/101"


def test_stop_asks_a_live_worker_and_stops_everything_else(api: Api, queue: str) -> None:
    def outcome(task: str) -> tuple[str, str]:
        api("tasks.stop", task=task)
        found = api("tasks.get_by_id", task=task)["task"]
        return found["status"], found["status_message"].split(" by ")[0]

    running = api.task()
    api("tasks.started", task=running)
    assert outcome(running) == ("stopped", "Stopped")

    alive = api.task()
    api("tasks.started", task=alive)
    api("workers.status_report", worker="w:1", task=alive, timestamp=1)
    assert outcome(alive) == ("in_progress", "stopping")

    at_a_desk = api.task(system_tags=["development"])
    api("tasks.started", task=at_a_desk)
    api("workers.status_report", worker="w:1", task=at_a_desk, timestamp=1)
    assert outcome(at_a_desk) == ("stopped", "Stopped")

    waiting = api.task()
    api("tasks.enqueue", task=waiting, queue=queue)
    assert outcome(waiting) == ("stopped", "Stopped")
    assert api("queues.get_by_id", queue=queue)["queue"]["entries"] == []


def test_reset_forgets_the_run_and_keeps_the_task(api: Api, queue: str) -> None:
    script = {"entry_point": "train.py", "diff": "print()"}
    task = api.task(script=script, hyperparams={"Args": {"lr": {"value": "1"}}})
    api("tasks.enqueue", task=task, queue=queue)
    api("tasks.started", task=task, force=True)
    api("tasks.edit", task=task, runtime={"host": "n1"}, force=True)
    api("tasks.add_or_update_artifacts", task=task, artifacts=[{"key": "a", "uri": "u"}], force=True)
    api("events.add_batch", type="training_stats_scalar", task=task, metric="m", variant="v", value=1, iter=3)
    api("tasks.failed", task=task)
    answer = api("tasks.reset", task=task)
    found = api("tasks.get_by_id", task=task)["task"]
    assert answer["dequeued"] == {"removed": 1}
    assert found["status"] == "created"
    assert found["script"] == {**SCRIPT, **script}
    assert found["hyperparams"]["Args"]["lr"]["value"] == "1"
    assert (found["runtime"], found["execution"], found["last_metrics"]) == ({}, EXECUTION, {})
    assert not found.keys() & {"started", "completed", "last_worker"}
    assert api("events.get_task_events", task=task)["total"] == 0


def test_clone_is_a_draft_of_the_same_work(api: Api) -> None:
    project = api("projects.create", name="for clones")["id"]
    model = api("models.create", name="an input", uri="http://there/in.pt")["id"]
    task = api.task(
        "original",
        project=project,
        tags=["t"],
        system_tags=["development", "archived", "kept"],
        script={"diff": "x"},
        output_dest="http://there",
        hyperparams={"Args": {"a": {"value": "1"}}, "General": {"b": {"value": "2"}}},
        models={"input": [{"name": "i", "model": model}], "output": [{"name": "o", "model": "n"}]},
    )
    api("tasks.started", task=task)
    copy = api("tasks.clone", task=task, new_task_hyperparams={"Args": {"a": {"value": 5}}}, new_task_name="copy")["id"]
    found = api("tasks.get_by_id", task=copy)["task"]
    assert (found["name"], found["status"], found["project"], found["tags"]) == ("copy", "created", project, ["t"])
    assert found["system_tags"] == ["kept"]
    assert found["hyperparams"] == {"Args": {"a": {"section": "Args", "name": "a", "value": "5"}}}
    assert found["models"] == {"input": [{"name": "i", "model": model}], "output": []}
    assert (found["output"], found["parent"]) == ({"destination": "http://there"}, task)
    plain = api("tasks.get_by_id", task=api("tasks.clone", task=copy, new_project_name="for clones of clones")["id"])
    assert (plain["task"]["name"], plain["task"]["parent"]) == ("copy", task)


def test_a_clone_is_checked_as_far_as_it_is_asked_for(api: Api) -> None:
    model = api("models.create", name="an input", uri="http://there/in.pt")["id"]
    task = api.task(models={"input": [{"name": "i", "model": model}]})
    api("models.delete", model=model, force=True)
    copy = api("tasks.get_by_id", task=api("tasks.clone", task=task)["id"])["task"]
    assert copy["models"]["input"] == [{"name": "i", "model": f"__DELETED__{model}"}]
    for refused in (
        {"validate_references": True},
        {"new_task_input_models": [{"name": "i", "model": "none"}]},
        {"execution_overrides": {"model": "none"}},
    ):
        assert api.ask("tasks.clone", {"task": task, **refused}).code == "400/201"
    assert api.ask("tasks.clone", {"task": task, "new_task_parent": "none"}).code == "400/101"


def test_a_clone_says_which_project_its_name_means(api: Api) -> None:
    task = api.task()
    answers = [api("tasks.clone", task=task, new_project_name="new for a clone") for _ in range(2)]
    projects = [api("tasks.get_by_id", task=answer["id"])["task"]["project"] for answer in answers]
    assert [answer["new_project"] for answer in answers] == [{"id": id, "name": "new for a clone"} for id in projects]
    assert projects[0] == projects[1]


def test_a_new_task_refers_to_what_there_is(api: Api) -> None:
    fields = {"name": "a task", "type": "training"}
    assert api.ask("tasks.create", {**fields, "parent": "none"}).code == "400/101"
    models = {"input": [{"name": "i", "model": "none"}]}
    assert api.ask("tasks.create", {**fields, "models": models}).code == "400/201"
    parent = api.task()
    child = api.task(parent=parent)
    api("tasks.delete", task=parent)
    kept = api("tasks.get_by_id", task=child)["task"]["parent"]
    assert kept == f"__DELETED__{parent}"
    api("tasks.create", **fields, parent=kept)


def test_an_input_that_was_deleted_keeps_no_task_from_being_edited(api: Api) -> None:
    model = api("models.create", name="an input", uri="http://there/in.pt")["id"]
    task = api.task(models={"input": [{"name": "i", "model": model}]})
    api("models.delete", model=model, force=True)
    models = api("tasks.get_by_id", task=task)["task"]["models"]
    made = api("models.create", name="an output", uri="http://there/out.pt", task=task)["id"]
    edits: list[dict[str, Any]] = [{**models, "output": [{"name": "o", "model": made}]}, {"output": []}]
    for sent in edits:
        api("tasks.edit", task=task, models=sent)
        assert api("tasks.get_by_id", task=task)["task"]["models"] == {**models, **sent}
    unknown = {"input": [*models["input"], {"name": "j", "model": "none"}]}
    assert api.ask("tasks.edit", {"task": task, "models": unknown}).code == "400/201"


def test_fields_of_old_clients_are_found_where_new_ones_look(api: Api) -> None:
    model = api("models.create", name="an input", uri="http://there/in.pt")["id"]
    sent = {"parameters": {"lr": 1, "TF_DEFINE/steps": "5"}, "model_desc": {"design": "deep"}, "model": model}
    own = {"General": {"b": {"value": "2"}}}
    task = api.task(execution=sent, hyperparams=own)

    def parameters() -> list[tuple[str, str, str]]:
        found = api("tasks.get_hyper_params", tasks=[task])["params"][0]["hyperparams"]
        return [(item["section"], item["name"], item["value"]) for item in found]

    found = api("tasks.get_by_id", task=task)["task"]
    assert parameters() == [("Args", "lr", "1"), ("General", "b", "2"), ("TF_DEFINE", "steps", "5")]
    assert found["hyperparams"]["Args"]["lr"]["type"] == "legacy"
    assert found["configuration"] == {"design": {"name": "design", "value": "deep", "type": "legacy"}}
    assert (found["models"]["input"], found["execution"]) == ([{"name": "Input Model", "model": model}], EXECUTION)
    api("tasks.edit", task=task, execution={"parameters": {"momentum": "0.9"}})
    assert parameters() == [("Args", "momentum", "0.9"), ("General", "b", "2")]


def test_edit_merges_objects_of_fixed_fields_and_needs_force_beyond_a_draft(api: Api, queue: str) -> None:
    task = api.task(hyperparams={"Args": {"a": {"value": "1"}}}, script={"diff": "x", "branch": "b"})
    api("tasks.edit", task=task, script={"diff": "y"}, hyperparams={"General": {"b": {"value": "2"}}})
    found = api("tasks.get_by_id", task=task)["task"]
    assert found["script"] == {**SCRIPT, "diff": "y", "branch": "b"}
    api("tasks.edit", task=task, script={"branch": None})
    assert api("tasks.get_by_id", task=task)["task"]["script"] == {**SCRIPT, "diff": "y"}
    assert found["hyperparams"].keys() == {"General"}
    api("tasks.enqueue", task=task, queue=queue)
    assert api.ask("tasks.edit", {"task": task, "name": "n"}).code == "400/110"
    api("tasks.edit", task=task, force=True, execution={"parameters": {}}, runtime={"a": {"b": 1}})
    found = api("tasks.get_by_id", task=task)["task"]
    assert found["execution"] == {**EXECUTION, "queue": queue}
    assert found["runtime"] == {"a": {"b": 1}}


def test_update_writes_a_message_on_a_queued_task_where_edit_does_not(api: Api, queue: str) -> None:
    task = api.task()
    api("tasks.enqueue", task=task, queue=queue)
    api("tasks.edit", task=task, force=True, status_message="by edit")
    assert api("tasks.get_by_id", task=task)["task"]["status_message"] == ""
    api("tasks.update", task=task, status_message="waiting for Slurm")
    found = api("tasks.get_by_id", task=task)["task"]
    assert (found["status"], found["status_message"]) == ("queued", "waiting for Slurm")


def test_hyper_parameters_merge_key_by_key(api: Api) -> None:
    task = api.task(hyperparams={"Args": {"a": {"value": "1"}, "b": {"value": "2"}}})
    edit = [{"section": "Args", "name": "a", "value": "9"}, {"section": "properties", "name": "gpus", "value": 2}]

    def values() -> dict[str, dict[str, str]]:
        sections = api("tasks.get_by_id", task=task)["task"]["hyperparams"]
        return {section: {name: item["value"] for name, item in items.items()} for section, items in sections.items()}

    api("tasks.edit_hyper_params", task=task, hyperparams=edit)
    assert values() == {"Args": {"a": "9", "b": "2"}, "properties": {"gpus": "2"}}
    api("tasks.edit_hyper_params", task=task, hyperparams=edit[:1], replace_hyperparams="section")
    assert values() == {"Args": {"a": "9"}, "properties": {"gpus": "2"}}
    api("tasks.edit_hyper_params", task=task, hyperparams=edit[:1], replace_hyperparams="all")
    assert values() == {"Args": {"a": "9"}}
    api("tasks.delete_hyper_params", task=task, hyperparams=[{"section": "Args", "name": "a"}])
    assert values() == {}
    assert api("tasks.get_hyper_params", tasks=[task])["params"] == [{"task": task, "hyperparams": []}]


def test_parts_of_a_running_task_change_by_force_but_for_user_properties(api: Api) -> None:
    task = api.task(configuration={"net": {"value": "wide"}})
    api("tasks.started", task=task)
    item = {"section": "General", "name": "a", "value": "1"}
    for action, fields in (
        ("tasks.edit_hyper_params", {"hyperparams": [item]}),
        ("tasks.delete_hyper_params", {"hyperparams": [item]}),
        ("tasks.edit_configuration", {"configuration": [{"name": "net", "value": "deep"}]}),
        ("tasks.delete_configuration", {"configuration": ["net"]}),
    ):
        assert api.ask(action, {"task": task, **fields}).code == "400/110", action
        api(action, task=task, force=True, **fields)
    api("tasks.edit_hyper_params", task=task, hyperparams=[{**item, "section": "Properties"}])
    assert api("tasks.get_by_id", task=task)["task"]["hyperparams"].keys() == {"properties"}
    api("tasks.delete_hyper_params", task=task, hyperparams=[{"section": "Properties"}])
    assert api("tasks.get_by_id", task=task)["task"]["hyperparams"] == {}


def test_artifacts_and_models_have_one_entry_per_name(api: Api) -> None:
    task = api.task()
    for uri in ("first", "second"):
        api("tasks.add_or_update_artifacts", task=task, artifacts=[{"key": "a", "uri": uri}, {"key": "b", "uri": "c"}])
        api("tasks.add_or_update_model", task=task, name="m", model=uri, type="output", iteration=7)
    found = api("tasks.get_by_id", task=task)["task"]
    assert [(a["key"], a["uri"], a["mode"]) for a in found["execution"]["artifacts"]] == [
        ("a", "second", "output"),
        ("b", "c", "output"),
    ]
    assert found["models"] == {"input": [], "output": [{"name": "m", "model": "second"}]}
    assert found["last_iteration"] == 7
    api("tasks.delete_artifacts", task=task, artifacts=[{"key": "a", "mode": "output"}])
    assert len(api("tasks.get_by_id", task=task)["task"]["execution"]["artifacts"]) == 1


def test_only_fields_reach_into_objects(api: Api) -> None:
    task = api.task(
        script={"requirements": {"pip": "numpy"}, "diff": "x" * 1000},
        runtime={"_abort_callback_timeout": 5, "other": 1},
        models={"output": [{"name": "n", "model": "m"}]},
    )
    wanted = ["status", "script.requirements", "runtime._abort_callback_timeout", "runtime.none", "models.output.model"]
    assert api("tasks.get_all", id=[task], only_fields=wanted)["tasks"] == [
        {
            "id": task,
            "status": "created",
            "script": {"requirements": {"pip": "numpy"}},
            "runtime": {"_abort_callback_timeout": 5},
            "models": {"output": [{"model": "m"}]},
        }
    ]
    assert api("tasks.get_by_id", task=task, only_fields=["name"])["task"] == {"id": task, "name": "a task"}


@pytest.fixture(scope="module")
def five(api: Api) -> str:
    """A project with five tasks named no0 to no4; no3 is completed and no4 archived."""
    project = str(api("projects.create", name="five")["id"])
    ids = [api.task(f"no{i}", project=project, tags=[f"t{i}", "all"], comment=f"c{9 - i}") for i in range(5)]
    api("tasks.completed", task=ids[3], force=True)
    api("tasks.archive", tasks=[ids[4]])
    return project


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "no0 no1 no2 no3 no4"),
        ({"name": "^No[12]$"}, "no1 no2"),
        ({"name": ["no1", "no4"]}, "no1 no4"),
        ({"status": ["completed"]}, "no3"),
        ({"status": ["-completed"]}, "no0 no1 no2 no4"),
        ({"system_tags": ["-archived"]}, "no0 no1 no2 no3"),
        ({"system_tags": ["__$all", "__$not", "archived"]}, "no0 no1 no2 no3"),
        ({"tags": ["t0", "t2"]}, "no0 no2"),
        ({"tags": ["__$and", "t0", "t2"]}, ""),
        ({"tags": ["__$and", "t0", "all"]}, "no0"),
        ({"type": "testing"}, ""),
        ({"order_by": ["-name"]}, "no4 no3 no2 no1 no0"),
        ({"order_by": ["comment"]}, "no4 no3 no2 no1 no0"),
        ({"order_by": ["name"], "page": 1, "page_size": 2}, "no2 no3"),
        ({"page": 9, "page_size": 2}, ""),
        ({"created": [">2000-01-01T00:00:00", "<2001-01-01T00:00:00"]}, ""),
        ({"created": ["2000-01-01T00:00:00Z", None]}, "no0 no1 no2 no3 no4"),
        ({"_any_": {"fields": ["name", "comment"], "pattern": "no0|c8"}}, "no0 no1"),
        ({"_all_": {"fields": ["name", "status"], "pattern": "n|e"}, "name": "no3"}, "no3"),
        ({"search_text": "No2"}, "no2"),
        ({"parent": [None]}, "no0 no1 no2 no3 no4"),
    ],
    ids=str,
)
def test_lists_are_filtered_ordered_and_paged(api: Api, five: str, filters: dict[str, Any], names: str) -> None:
    found = api("tasks.get_all", **{"order_by": ["name"], "project": [five], "only_fields": ["name"], **filters})
    assert " ".join(task["name"] for task in found["tasks"]) == names


def test_scrolling_visits_each_task_once(api: Api, five: str) -> None:
    seen, scroll = [], None
    while True:
        page = api("tasks.get_all", project=[five], size=2, scroll_id=scroll, only_fields=["name"], order_by=["name"])
        if not page["tasks"]:
            break
        seen += [task["name"] for task in page["tasks"]]
        scroll = page["scroll_id"]
    assert seen == ["no0", "no1", "no2", "no3", "no4"]


@pytest.mark.parametrize(
    "filters",
    [
        {"name": "("},
        {"page": -1},
        {"page_size": 0},
        {"order_by": ["nope"]},
        {"created": [">yesterday"]},
        {"status": [{"$ne": "x"}]},
        {"scroll_id": "abc", "size": 5},
        {"nonsense": "x"},
        {"_any_": {"fields": ["name"]}},
        {"_any_": {"fields": ["name"], "datetime": [">2020-01-01T00:00:00"]}},
        {"_or_": {"fields": ["last_update"], "datetime": [">2020-01-01T00:00:00"], "nonsense": 1}},
        {"filters": {"tags": {"test": ["1"]}}},
        {"filters": {"nonsense": {"any": {"include": ["1"]}}}},
        {"last_iteration": [None, None]},
        {"last_iteration": ["x", None]},
        {"last_metrics.a.b.max_value": [1, 2, 3]},
    ],
    ids=str,
)
def test_invalid_filter_is_refused_with_reason(api: Api, filters: dict[str, Any]) -> None:
    assert api.ask("tasks.get_all", filters).code == "400/12"


def test_delete_takes_everything_of_the_task_along(api: Api, queue: str) -> None:
    task = api.task()
    model = api("models.create", name="net", uri="u", task=task, ready=False)["id"]
    api("events.add_batch", type="log", task=task, msg="x")
    api("tasks.enqueue", task=task, queue=queue)
    assert api.ask("tasks.delete", {"task": task}).code == "400/123"
    assert api("tasks.delete", task=task, force=True) == {
        "deleted": True,
        "deleted_models": 1,
        "updated_children": 0,
        "updated_models": 0,
        "events": {"deleted": 1},
    }
    assert api("queues.get_num_entries", queue=queue) == {"num": 0}
    assert api.ask("models.get_by_id", {"model": model}).code == "400/201"


def test_models_that_others_use_outlive_the_task_that_made_them(api: Api) -> None:
    maker = api.task("maker")
    used, unused = (
        api("models.create", name=name, uri="u", task=maker, ready=False)["id"] for name in ("used", "unused")
    )
    api.task("user", models={"input": [{"name": "i", "model": used}]})
    assert api("tasks.delete", task=maker, force=True)["deleted_models"] == 1
    assert api("models.get_by_id", model=used)["model"]["name"] == "used"
    assert api.ask("models.get_by_id", {"model": unused}).code == "400/201"


def test_projects_grow_their_parents_and_are_made_once(api: Api) -> None:
    inner = api("projects.create", name="top/middle/inner", description="d")["id"]
    for name in ("top/middle/inner", " top / middle / inner ", "top/middle", "top"):
        answer = api.ask("projects.create", {"name": name})
        assert (answer.code, "already exists" in answer.meta["result_msg"]) == ("400/801", True)
    by_name = api("projects.get_all", name="^top/middle/inner$", only_fields=["id"], search_hidden=True)
    assert by_name["projects"] == [{"id": inner}]
    found = api("projects.get_by_id", project=inner)["project"]
    assert (found["basename"], found["description"], len(found["path"])) == ("inner", "d", 2)
    assert [p["name"] for p in api("projects.get_all", name="^top", shallow_search=True)["projects"]] == ["top"]
    middle = found["path"][1]
    api("projects.create", name="top/taken")
    assert api.ask("projects.update", {"project": middle, "name": "top/taken"}).code == "400/801"
    api("projects.update", project=middle, name="top/centre")
    assert api("projects.get_by_id", project=inner)["project"]["name"] == "top/centre/inner"
    assert api.ask("projects.get_by_id", {"project": "none"}).code == "400/401"


def test_projects_with_tasks_are_deleted_by_force_only(api: Api) -> None:
    project = api("projects.create", name="doomed")["id"]
    task = api.task(project=project)
    assert api.ask("projects.delete", {"project": project}).code == "400/402"
    assert api("projects.delete", project=project, force=True)["deleted"] == 1
    assert "project" not in api("tasks.get_by_id", task=task)["task"]


def test_models_are_created_edited_and_found(api: Api) -> None:
    task = api.task("maker")
    model = api("models.create", name="net", uri="placeholder", ready=False, labels={"cat": 1})["id"]
    api("models.edit", model=model, uri="http://there/net.pt", framework="PyTorch", task=task, iteration=4)
    metadata = [{"key": "k", "type": "str", "value": "v"}]
    api("models.add_or_update_metadata", model=model, metadata=metadata)
    api("models.set_ready", model=model, publish_task=False)
    assert api.ask("models.set_ready", {"model": model, "publish_task": False}).code == "400/203"
    found = api("models.get_by_id", model=model)["model"]
    assert (found["uri"], found["ready"], found["labels"], found["last_iteration"]) == (
        "http://there/net.pt",
        True,
        {"cat": 1},
        4,
    )
    assert found["metadata"] == {"k": metadata[0]}
    assert [m["id"] for m in api("models.get_all", task=[task])["models"]] == [model]
    made = api("models.update_for_task", task=task, uri="http://there/2.pt", name="second")
    assert api("tasks.get_by_id", task=task)["task"]["models"]["output"] == [
        {"model": made["id"], "name": "Output Model"}
    ]
    reader = api.task("reader", models={"input": [{"name": "i", "model": made["id"]}]})
    assert api.ask("models.delete", {"model": made["id"]}).code == "400/205"
    api("tasks.delete", task=reader)
    assert api("models.delete", model=made["id"], force=True)["deleted"] is True
