"""What ClearML's server (API 2.34) answers and clients rely on, one difference that was once met a test."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from server_core import ServerCore


def new_task(server: ServerCore, name: str = "a task", **fields: Any) -> str:
    return str(server("tasks.create", name=name, type="training", **fields)["id"])


def names(server: ServerCore, **filters: Any) -> list[str]:
    return [task["name"] for task in server("tasks.get_all", **{"order_by": ["name"], **filters})["tasks"]]


def scalar(task: str, iteration: int, value: float, **fields: Any) -> dict[str, Any]:
    own = {"metric": "loss", "variant": "train", "iter": iteration, "value": value}
    return {"type": "training_stats_scalar", "task": task, **own, **fields}


def hashed(name: str) -> str:
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


# A task


def test_a_fresh_task_has_all_fields_that_the_sdk_reads_without_asking(server: ServerCore) -> None:
    requests: list[dict[str, Any]] = [{}, {"execution": {"artifacts": None}, "script": {"diff": None}}]
    for fields in requests:
        task = server("tasks.get_by_id", task=new_task(server, **fields))["task"]
        assert task["execution"] == {
            "artifacts": [],
            "model_desc": {},
            "model_labels": {},
            "parameters": {},
            "test_split": 0,
        }
        assert task["script"] == {"binary": "python", "repository": "", "entry_point": "", "requirements": {}}


def test_artifacts_are_in_the_order_of_their_keys(server: ServerCore) -> None:
    task = new_task(server)
    for key in ("b", "c", "a"):
        server("tasks.add_or_update_artifacts", task=task, artifacts=[{"key": key, "uri": key}])
    artifacts = server("tasks.get_by_id", task=task)["task"]["execution"]["artifacts"]
    assert [artifact["key"] for artifact in artifacts] == ["a", "b", "c"]


def test_an_edit_may_set_the_status(server: ServerCore) -> None:
    task = new_task(server)
    server("tasks.edit", task=task, status="completed")
    assert server("tasks.get_by_id", task=task)["task"]["status"] == "completed"


def test_the_latest_values_have_first_mean_and_count(server: ServerCore) -> None:
    task = new_task(server)
    server("events.add_batch", **scalar(task, 0, 4.0))
    server("events.add_batch", **scalar(task, 1, 1.0))
    latest = server("tasks.get_by_id", task=task)["task"]["last_metrics"][hashed("loss")][hashed("train")]
    assert {name: latest[name] for name in ("first_value", "first_value_iteration", "mean_value", "count")} == {
        "first_value": 4.0,
        "first_value_iteration": 0,
        "mean_value": 2.5,
        "count": 2,
    }


def test_a_run_that_starts_again_has_a_start_of_its_own(server: ServerCore) -> None:
    task = new_task(server)
    server("tasks.started", task=task)
    first = server("tasks.get_by_id", task=task)["task"]["started"]
    server("tasks.stopped", task=task)
    server.clock.advance(60)
    server("tasks.started", task=task)
    found = server("tasks.get_by_id", task=task)["task"]
    assert found["started"] > first and "completed" not in found


# Lists


@pytest.fixture
def tagged(server: ServerCore) -> ServerCore:
    for name, tags in (("task0", ["a"]), ("task1", ["a", "b"]), ("task2", []), ("task3", ["b"])):
        new_task(server, name, tags=tags)
    return server


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (["a", "-b"], "task0"),
        (["-b", "a"], "task0"),
        (["a", "b"], "task0 task1 task3"),
        (["__$and", "a", "b"], "task1"),
        (["__$all", "a", "__$not", "b"], "task0"),
        (["__$or", "a", "__$not", "b"], "task0 task1 task2"),
        (["__$not", "a", "__$not", "b"], "task2"),
        (["__$or", "-b"], ""),
        (["__$or", "a", "__$nop", "-b"], "task0 task1 task2"),
        (["__$nop", "a", "-b"], "task0"),
        ([None], "task2"),
        (["a", None], "task0 task1 task2"),
        (["-a", None], "task2 task3"),
    ],
    ids=str,
)
def test_tags_are_filtered_as_by_the_reference(tagged: ServerCore, tags: list[str | None], found: str) -> None:
    assert " ".join(names(tagged, tags=tags)) == found


@pytest.mark.parametrize("tags", [["__$not"], ["a", "__$not"], ["__$xor", "a"], ["__$not", "__$and", "a"], ["-"]])
def test_a_list_that_makes_no_sense_is_400_16(tagged: ServerCore, tags: list[str]) -> None:
    assert tagged.administrator.ask("tasks.get_all", {"tags": tags}).code == "400/16"


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ({"any": {"include": [None]}}, "task2"),
        ({"any": {"include": ["a", None]}}, "task0 task1 task2"),
        ({"any": {"exclude": [None]}}, "task0 task1 task3"),
        ({"any": {"exclude": ["a", None]}}, "task0 task1 task2 task3"),
        ({"all": {"include": ["a", None]}}, ""),
        ({"all": {"exclude": ["a", None]}}, "task3"),
        ({"any": {"include": ["a"]}}, "task0 task1"),
        ({"any": {"exclude": ["a", "b"]}}, "task0 task2 task3"),
        ({"any": {"include": ["a"], "exclude": ["b"]}}, "task0 task1 task2"),
        ({"all": {"include": ["a", "b"]}}, "task1"),
        ({"all": {"include": ["a"], "exclude": ["b"]}}, "task0"),
        ({"any": {"include": ["a", "b"]}, "all": {"exclude": ["b"]}}, "task0"),
        ({"any": {"include": ["a"]}, "all": {"include": ["b"]}, "op": "or"}, "task0 task1 task3"),
    ],
    ids=str,
)
def test_filters_by_sets_mean_what_they_mean_there(tagged: ServerCore, condition: dict[str, Any], found: str) -> None:
    assert " ".join(names(tagged, filters={"tags": condition})) == found


def test_times_of_any_of_several_fields_are_filtered(server: ServerCore) -> None:
    new_task(server, "old")
    server.clock.advance(3600)
    since = server.clock.now().isoformat()
    server.clock.advance(1)
    new_task(server, "new")
    fields = ["last_update", "last_change"]
    assert names(server, _or_={"fields": fields, "datetime": [f">{since}"]}) == ["new"]
    assert names(server, _and_={"fields": fields, "datetime": [f"<{since}"]}) == ["old"]
    assert names(server, _any_={"fields": fields, "datetime": f">{since}"}) == ["new"]
    server("models.create", name="a model", uri="u")
    for year, found in (("2099", 0), ("2000", 1)):
        condition = {"fields": fields, "datetime": [f">{year}-01-01T00:00:00"]}
        assert len(server("models.get_all", _or_=condition)["models"]) == found


def test_ranges_are_ranges(server: ServerCore) -> None:
    good, bad, none = (new_task(server, name) for name in ("good", "bad", "none"))
    server("events.add_batch", **scalar(good, 3, 0.95))
    server("events.add_batch", **scalar(bad, 5, 0.1))
    field = f"last_metrics.{hashed('loss')}.{hashed('train')}.max_value"
    ids = [good, bad, none]
    assert names(server, id=ids, **{field: [0.9, None]}) == ["good"]
    assert names(server, id=ids, **{field: ["0.05", "0.9"]}) == ["bad"]
    # Nothing is less than everything, as in ClearML's database.
    assert names(server, id=ids, **{field: [None, 0.9]}) == ["bad", "none"]
    assert names(server, id=ids, last_iteration=[4, 9]) == ["bad"]


def test_what_lacks_a_value_comes_last_in_either_order(server: ServerCore) -> None:
    tasks = {name: new_task(server, name) for name in ("without", "low", "high")}
    server("events.add_batch", **scalar(tasks["low"], 0, 1.0))
    server("events.add_batch", **scalar(tasks["high"], 0, 2.0))
    field = f"last_metrics.{hashed('loss')}.{hashed('train')}.value"
    assert names(server, order_by=[field]) == ["low", "high", "without"]
    assert names(server, order_by=[f"-{field}"]) == ["high", "low", "without"]


def test_parameters_are_ordered_as_numbers(server: ServerCore) -> None:
    for value in ("10", "9", "1e-3", "0.02", "text", "-1"):
        new_task(server, f"lr {value}", hyperparams={"Args": {"lr.x": {"value": value}}})
    new_task(server, "none at all")
    expected = ["lr -1", "lr 1e-3", "lr 0.02", "lr 9", "lr 10", "lr text", "none at all"]
    assert names(server, order_by=["hyperparams.Args.lr%2Ex.value"]) == expected
    assert names(server, **{"hyperparams.Args.lr%2Ex.value": ["9", "10"]}) == ["lr 10", "lr 9"]


def test_projects_inside_a_project_are_listed_with_it(server: ServerCore) -> None:
    outer = server("projects.create", name="outer")["id"]
    inner = server("projects.create", name="outer/inner")["id"]
    new_task(server, "in outer", project=outer)
    new_task(server, "in inner", project=inner)
    assert names(server, project=[outer]) == ["in outer"]
    for project in (outer, [outer]):
        assert names(server, project=project, include_subprojects=True) == ["in inner", "in outer"]


def test_models_of_tasks_are_a_filter(server: ServerCore) -> None:
    model = server("models.create", name="a model", uri="u")["id"]
    new_task(server, "reads", models={"input": [{"name": "i", "model": model}]})
    new_task(server, "makes", models={"output": [{"name": "o", "model": model}]})
    assert names(server, **{"models.input.model": [model]}) == ["reads"]
    assert names(server, filters={"models.output.model": {"any": {"include": [model]}}}) == ["makes"]


@pytest.mark.parametrize("service", ["tasks", "models", "projects", "queues"])
def test_a_field_that_there_is_not_is_400_14(server: ServerCore, service: str) -> None:
    assert server.administrator.ask(f"{service}.get_all", {"only_fields": ["nonsense"]}).code == "400/14"
    assert server.administrator.ask(f"{service}.get_all", {"nonsense": "x"}).code == "400/12"


def test_workers_are_found_by_any_tag_and_without_some(server: ServerCore) -> None:
    for worker, tags in (("one", ["x"]), ("two", ["y"]), ("three", [])):
        server("workers.register", worker=worker, tags=tags)

    def found(tags: list[str]) -> set[str]:
        return {worker["id"] for worker in server("workers.get_all", tags=tags)["workers"]}

    assert found(["x", "y"]) == {"one", "two"}
    assert found(["-x"]) == {"two", "three"}


# Models


def test_an_output_model_is_deleted_and_leaves_its_tasks_list(server: ServerCore) -> None:
    task = new_task(server)
    model = server("models.create", name="a model", uri="u", task=task)["id"]
    server("tasks.add_or_update_model", task=task, name="net", type="output", model=model)
    assert server("models.delete", model=model) == {"deleted": True, "url": "u"}
    assert server("tasks.get_by_id", task=task)["task"]["models"]["output"] == []


def test_an_input_model_is_deleted_by_force_and_marked(server: ServerCore) -> None:
    model = server("models.create", name="a model", uri="u")["id"]
    task = new_task(server, models={"input": [{"name": "i", "model": model}]})
    assert server.administrator.ask("models.delete", {"model": model}).code == "400/205"
    server("models.delete", model=model, force=True)
    assert server("tasks.get_by_id", task=task)["task"]["models"]["input"][0]["model"] == f"__DELETED__{model}"


def test_the_model_of_a_published_task_is_deleted_by_force_only(server: ServerCore) -> None:
    task = new_task(server)
    model = server("models.update_for_task", task=task, uri="u")["id"]
    server("tasks.completed", task=task, force=True, publish=True)
    assert server.administrator.ask("models.delete", {"model": model}).code == "400/206"
    server("models.delete", model=model, force=True)
    assert server("tasks.get_by_id", task=task)["task"]["models"]["output"][0]["model"] == f"__DELETED__{model}"


@pytest.mark.parametrize("action", ["models.edit", "models.update", "models.update_for_task", "models.create"])
def test_a_model_of_an_iteration_shows_how_far_its_task_is(server: ServerCore, action: str) -> None:
    task = new_task(server)
    model = server("models.create", name="a model", uri="u", task=task)["id"]
    of = {
        "models.update_for_task": {"task": task, "uri": "v"},
        "models.create": {"task": task, "name": "other", "uri": "u"},
    }
    server(action, **of.get(action, {"model": model}), iteration=3)
    assert server("tasks.get_by_id", task=task)["task"]["last_iteration"] == 3
    server(action, **of.get(action, {"model": model}), iteration=2)
    assert server("tasks.get_by_id", task=task)["task"]["last_iteration"] == 3


def test_a_task_is_published_with_all_models_that_it_made(server: ServerCore) -> None:
    task = new_task(server)
    made = [server("models.create", name=name, uri="u", task=task, ready=False)["id"] for name in ("first", "second")]
    for model in made:
        server("tasks.add_or_update_model", task=task, name=model, type="output", model=model)
    server("tasks.started", task=task)
    answer = server("tasks.completed", task=task, publish=True)
    assert (answer["published"], answer["fields"]["status"]) == (1, "published")
    assert [model["ready"] for model in server("models.get_all", id=made)["models"]] == [True, True]


def test_a_model_is_published_with_its_task_unless_asked_not_to(server: ServerCore) -> None:
    task = new_task(server)
    server("tasks.completed", task=task, force=True)
    kept, model = (server("models.create", name="a model", uri="u", task=task, ready=False)["id"] for _ in range(2))
    server("models.set_ready", model=kept, publish_task=False)
    assert server("tasks.get_by_id", task=task)["task"]["status"] == "completed"
    assert server("models.set_ready", model=model)["published_task"]["id"] == task
    assert server("tasks.get_by_id", task=task)["task"]["status"] == "published"


def test_a_model_made_for_a_task_is_not_final(server: ServerCore) -> None:
    model = server("models.update_for_task", task=new_task(server), uri="u")["id"]
    assert server("models.get_by_id", model=model)["model"]["ready"] is False


# Deletion


def test_a_task_with_published_children_or_models_is_deleted_by_force_only(server: ServerCore) -> None:
    parent, maker = new_task(server), new_task(server)
    child = new_task(server, parent=parent)
    server("tasks.completed", task=child, force=True, publish=True)
    model = server("models.create", name="a model", uri="u", task=maker)["id"]
    for task in (parent, maker):
        assert server.administrator.ask("tasks.delete", {"task": task}).code == "400/123"
    assert server("tasks.delete", task=parent, force=True)["updated_children"] == 1
    assert server("tasks.get_by_id", task=child)["task"]["parent"] == f"__DELETED__{parent}"
    assert server("tasks.delete", task=maker, force=True)["updated_models"] == 1
    assert server("models.get_by_id", model=model)["model"]["task"] == f"__DELETED__{maker}"


def test_a_deleted_task_names_the_files_that_it_leaves(server: ServerCore) -> None:
    task = new_task(server)
    server("models.create", name="a model", uri="a model's", task=task, ready=False)
    artifacts = [{"key": "out", "uri": "an output"}, {"key": "in", "uri": "an input", "mode": "input"}]
    server("tasks.add_or_update_artifacts", task=task, artifacts=artifacts)
    image = {"type": "training_debug_image", "task": task, "metric": "m", "variant": "v", "iter": 0, "url": "an image"}
    plot = {"layout": {"images": [{"source": "https://there/plot.png"}]}}
    server("events.add", **image)
    server("events.add", **{**image, "type": "plot", "plot_str": str(plot).replace("'", '"'), "url": None})
    assert "urls" not in server("tasks.reset", task=new_task(server))
    answer = server("tasks.delete", task=task, return_file_urls=True)
    assert answer["urls"] == {
        "model_urls": ["a model's"],
        "event_urls": ["an image", "https://there/plot.png"],
        "artifact_urls": ["an output"],
    }


def test_a_project_is_deleted_with_what_is_in_it_if_asked(server: ServerCore) -> None:
    outer = server("projects.create", name="outer")["id"]
    inner = server("projects.create", name="outer/inner")["id"]
    task, kept = new_task(server, project=inner), new_task(server, project=inner)
    server("models.create", name="a model", uri="u", project=outer)
    assert server.administrator.ask("projects.delete", {"project": outer}).code == "400/402"
    server("tasks.move", ids=[kept], project_name="elsewhere")
    found = {name: count for name, count in server("projects.validate_delete", project=outer).items() if count}
    assert found == {"tasks": 1, "non_archived_tasks": 1, "models": 1, "non_archived_models": 1}
    answer = server("projects.delete", project=outer, force=True, delete_contents=True)
    assert (answer["deleted"], answer["deleted_tasks"], answer["deleted_models"]) == (2, 1, 1)
    assert answer["urls"]["model_urls"] == ["u"]
    assert [found["id"] for found in server("tasks.get_all", id=[task, kept])["tasks"]] == [kept]


def test_what_is_archived_does_not_keep_a_project(server: ServerCore) -> None:
    project = server("projects.create", name="a project")["id"]
    task = new_task(server, project=project)
    server("tasks.archive", tasks=[task])
    assert server("projects.delete", project=project)["disassociated_tasks"] == 1


# Queues and events


def test_a_task_that_is_added_to_a_queue_knows_it(server: ServerCore) -> None:
    queue, task = server("queues.get_default")["id"], new_task(server)
    server("queues.add_task", queue=queue, task=task)
    assert server("tasks.get_by_id", task=task)["task"]["execution"]["queue"] == queue


def test_a_file_that_is_overwritten_shows_once(server: ServerCore) -> None:
    task = new_task(server)
    for iteration in range(4):
        image = {"type": "training_debug_image", "metric": "m", "variant": "v", "url": f"image {iteration % 2}"}
        server("events.add", task=task, iter=iteration, **image)
    shown = server("events.debug_images", metrics=[{"task": task, "metric": "m"}], iters=10)["metrics"][0]
    assert [iteration["iter"] for iteration in shown["iterations"]] == [3, 2]


def test_one_event_is_answered_like_many(server: ServerCore) -> None:
    answer = server("events.add", type="log", task=new_task(server), msg="x")
    assert answer == {"added": 1, "errors": 0, "errors_info": {}}


def test_a_line_of_a_metric_keeps_it(server: ServerCore) -> None:
    task = new_task(server)
    server("events.add", type="log", task=task, msg="x", metric="m", variant="v", iter=7)
    (event,) = server("events.get_task_log", task=task)["events"]
    assert (event["metric"], event["variant"], event["iter"]) == ("m", "v", 7)


@pytest.mark.parametrize("name", ["", "ab", " ab ", "é "])
def test_names_have_three_characters(server: ServerCore, name: str) -> None:
    task, queue, project = new_task(server), server("queues.create", name="gpus")["id"], "projects.create"
    model = server("models.create", name="a model", uri="u")["id"]
    calls: list[tuple[str, dict[str, Any]]] = [
        ("tasks.create", {"type": "training"}),
        ("tasks.edit", {"task": task}),
        ("tasks.update", {"task": task}),
        ("queues.create", {}),
        ("queues.update", {"queue": queue}),
        ("models.create", {"uri": "u"}),
        ("models.edit", {"model": model}),
        ("models.update_for_task", {"task": task, "uri": "u"}),
    ]
    if name:
        calls += [(project, {}), ("reports.create", {})]
    for action, fields in calls:
        assert server.administrator.ask(action, {**fields, "name": name}).code == "400/800", action


def test_blanks_around_a_name_are_dropped_and_parts_of_a_project_count_together(server: ServerCore) -> None:
    assert server("tasks.get_by_id", task=new_task(server, " abc "))["task"]["name"] == "abc"
    assert server("projects.create", name="outer/x")["id"]
    assert server.administrator.ask("projects.create", {"name": "x/inner"}).code == "400/800"
    assert server("projects.get_all", name="^x$")["projects"] == []
