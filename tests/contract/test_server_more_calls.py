"""Calls that scripts with ``APIClient`` and a browser make: about many objects, joined, over time, by projects."""

from __future__ import annotations

from typing import Any

import pytest
from server_core import Caller, ServerCore


def new_task(server: Any, name: str = "a task", **fields: Any) -> str:
    return str(server("tasks.create", **{"name": name, "type": "training", **fields})["id"])


def status(server: ServerCore, task: str) -> str:
    return str(server("tasks.get_by_id", task=task)["task"]["status"])


# Many


def test_what_works_for_one_task_is_kept_and_what_fails_is_reported(server: ServerCore) -> None:
    tasks = [new_task(server), new_task(server)]
    queue = server("queues.get_default")["id"]
    answer = server("tasks.enqueue_many", ids=[*tasks, "none", tasks[0]], queue=queue, verify_watched_queue=True)
    assert [item["id"] for item in answer["succeeded"]] == tasks
    assert [(item["id"], item["error"]["codes"]) for item in answer["failed"]] == [("none", [400, 101])]
    assert answer["queue_watched"] is False
    waiting = server("queues.get_by_id", queue=queue)["queue"]["entries"]
    assert [entry["task"] for entry in waiting] == tasks


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("tasks.dequeue_many", "queued", "created"),
        ("tasks.stop_many", "in_progress", "stopped"),
        ("tasks.publish_many", "completed", "published"),
        ("tasks.reset_many", "completed", "created"),
    ],
)
def test_calls_about_many_tasks_do_what_those_about_one_do(
    server: ServerCore, action: str, before: str, after: str
) -> None:
    tasks = [new_task(server), new_task(server)]
    if before == "queued":
        server("tasks.enqueue_many", ids=tasks)
    else:
        for task in tasks:
            server("tasks.started", task=task)
            if before == "completed":
                server("tasks.completed", task=task)
    answer = server(action, ids=[*tasks, "none"])
    assert [len(answer["succeeded"]), [item["id"] for item in answer["failed"]]] == [2, ["none"]]
    assert [status(server, task) for task in tasks] == [after, after]


def test_many_are_archived_and_deleted(server: ServerCore) -> None:
    tasks = [new_task(server), new_task(server)]
    server("tasks.enqueue", task=tasks[0])
    assert len(server("tasks.archive_many", ids=[*tasks, "none"])["failed"]) == 1
    found = server("tasks.get_by_id", task=tasks[0])["task"]
    assert (found["system_tags"], found["status"], "queue" in found["execution"]) == (["archived"], "created", False)
    server("tasks.unarchive_many", ids=tasks)
    assert server("tasks.get_by_id", task=tasks[0])["task"]["system_tags"] == []
    assert len(server("tasks.delete_many", ids=[*tasks, "none"])["succeeded"]) == 2
    models = [server("models.create", name=name, uri=name, ready=False)["id"] for name in ("one", "two")]
    assert len(server("models.publish_many", ids=[*models, "none"])["succeeded"]) == 2
    assert [item["error"]["codes"] for item in server("models.publish_many", ids=models)["failed"]] == [[400, 203]] * 2
    assert len(server("models.archive_many", ids=[*models, "none"])["failed"]) == 1
    answer = server("models.delete_many", ids=[*models, "none"])
    assert [item["url"] for item in answer["succeeded"]] == ["one", "two"]


def test_a_failed_one_of_many_leaves_nothing_half_done(server: ServerCore) -> None:
    # Its models are looked at before its queue is left: a refusal must undo what came before it.
    good, bad = new_task(server), new_task(server)
    server("models.create", name="final", uri="u", task=bad)
    server("tasks.enqueue_many", ids=[good, bad])
    answer = server("tasks.reset_many", ids=[bad, good])
    assert [item["id"] for item in answer["failed"]] == [bad]
    assert (status(server, bad), status(server, good)) == ("queued", "created")
    queue = server("queues.get_default")["id"]
    assert server("queues.get_num_entries", queue=queue) == {"num": 1}


def test_tasks_and_models_are_moved_and_tagged(server: ServerCore) -> None:
    task, model = new_task(server, tags=["old"]), server("models.create", name="a model", uri="u")["id"]
    project = server("tasks.move", ids=[task], project_name="moved/here")["project_id"]
    assert server("models.move", ids=[model], project=project) == {"project_id": project, "updated": 1}
    server("tasks.update_tags", ids=[task], add_tags=["new", "new"], remove_tags=["old"])
    assert server("tasks.get_by_id", task=task)["task"]["tags"] == ["new"]
    server("tasks.edit_runtime", task=task, runtime={"a": 1})
    assert server("tasks.get_by_id", task=task)["task"]["runtime"] == {"a": 1}
    assert server("tasks.get_types", projects=[project])["types"] == ["training"]
    assert server.administrator.ask("tasks.move", {"ids": [task]}).code == "400/12"
    server("tasks.move", ids=[task], project_name="")
    assert "project" not in server("tasks.get_by_id", task=task)["task"]


def test_a_task_is_checked_without_being_made(server: ServerCore) -> None:
    server("tasks.validate", name="a task", type="training")
    assert server.administrator.ask("tasks.validate", {"name": "a task", "type": "nonsense"}).code == "400/12"
    assert server("tasks.get_all")["tasks"] == []


# Joined


def test_joined_lists_have_names_in_place_of_ids(server: ServerCore) -> None:
    project = server("projects.create", name="a project")["id"]
    parent = new_task(server, "the parent")
    model = server("models.create", name="a model", uri="u", project=project)["id"]
    task = new_task(server, project=project, parent=parent, models={"input": [{"name": "i", "model": model}]})
    fields = ["name", "project.name", "parent.name", "user.name", "models.input.model.name"]
    (found,) = server("tasks.get_all_ex", id=[task], only_fields=fields)["tasks"]
    assert found["project"] == {"id": project, "name": "a project"}
    assert found["parent"] == {"id": parent, "name": "the parent"}
    assert found["user"]["name"] == "administrator"
    assert found["models"]["input"][0]["model"] == {"id": model, "name": "a model"}
    (plain,) = server("tasks.get_all_ex", id=[task])["tasks"]
    assert (plain["project"], plain["name"]) == ({"id": project}, "a task")
    (other,) = server("models.get_all_ex", id=[model], only_fields=["project.name"])["models"]
    assert other == {"id": model, "project": {"id": project, "name": "a project"}}
    assert server("tasks.get_by_id_ex", id=[task], only_fields=["project.name"])["tasks"][0]["project"]["name"]


def test_joined_queues_have_their_tasks_and_workers(server: ServerCore) -> None:
    queue = server("queues.create", name="a queue", metadata=[{"key": "k", "value": "v"}])["id"]
    tasks = [new_task(server, name) for name in ("first", "second")]
    server("tasks.enqueue_many", ids=tasks, queue=queue)
    server("workers.register", worker="a worker", queues=[queue])
    (found,) = server("queues.get_all_ex", id=[queue])["queues"]
    assert [entry["task"]["name"] for entry in found["entries"]] == ["first", "second"]
    assert [worker["name"] for worker in found["workers"]] == ["a worker"]
    assert server("queues.get_all", id=[queue], max_task_entries=1)["queues"][0]["entries"][0]["task"] == tasks[0]
    server("queues.add_or_update_metadata", queue=queue, metadata=[{"key": "l", "value": "w"}])
    server("queues.delete_metadata", queue=queue, keys=["k"])
    assert server("queues.get_by_id", queue=queue)["queue"]["metadata"] == {"l": {"key": "l", "value": "w"}}
    assert server("queues.clear_queue", queue=queue) == {"removed_tasks": tasks}
    assert status(server, tasks[0]) == "created"


# Projects


def test_projects_are_moved_and_merged_with_those_inside_them(server: ServerCore) -> None:
    source = server("projects.create", name="Root1/Pr1")["id"]
    child = server("projects.create", name="Root1/Pr1/Pr2")["id"]
    assert server.administrator.ask("projects.update", {"project": source, "name": "Root2/Pr1"}).code == "400/408"
    assert server("projects.move", project=source, new_location="Root2")["moved"] == 2
    found = server("projects.get_by_id", project=child)["project"]
    assert (found["name"], len(found["path"])) == ("Root2/Pr1/Pr2", 2)
    assert server.administrator.ask("projects.move", {"project": source, "new_location": "Root2/Pr1"}).code == "400/408"
    other = server("projects.create", name="Other/Inner")["id"]
    task = new_task(server, project=source)
    answer = server("projects.merge", project=source, destination_project=other)
    assert answer == {"moved_entities": 1, "moved_projects": 1}
    assert server("projects.get_by_id", project=child)["project"]["name"] == "Other/Inner/Pr2"
    assert server("tasks.get_by_id", task=task)["task"]["project"] == other
    assert server.administrator.ask("projects.get_by_id", {"project": source}).code == "400/401"
    assert server.administrator.ask("projects.create", {"name": "/"}).code == "400/407"


def test_projects_have_figures_of_their_tasks(server: ServerCore) -> None:
    outer = server("projects.create", name="outer")["id"]
    inner = server("projects.create", name="outer/inner")["id"]
    task, archived = new_task(server, project=inner), new_task(server, project=inner)
    new_task(server, project=inner, system_tags=["hidden"])
    for each in (task, archived):
        server("tasks.started", task=each)
        server.clock.advance(5)
        server("tasks.stopped", task=each)
    server("tasks.archive", tasks=[archived])
    asked = {"id": [outer, inner], "order_by": ["name"], "include_stats": True, "check_own_contents": True}
    above, below = server("projects.get_all_ex", **asked)["projects"]
    assert (above["stats"]["active"]["total_tasks"], above["own_tasks"], below["own_tasks"]) == (1, 0, 1)
    assert above["stats"]["active"]["total_runtime"] == 5
    assert above["stats"]["active"]["completed_tasks_24h"] == 1
    assert above["stats"]["active"]["status_count"]["stopped"] == 1
    assert [project["name"] for project in above["sub_projects"]] == ["outer/inner"]
    (found, _) = server("projects.get_all_ex", **asked, stats_for_state="archived")["projects"]
    assert found["stats"]["archived"]["total_tasks"] == 1
    own = server("users.get_current_user")["user"]["id"]
    assert len(server("projects.get_all_ex", active_users=[own])["projects"]) == 2
    assert server("projects.get_all_ex", active_users=["none"])["projects"] == []
    assert [p["id"] for p in server("projects.get_all", parent=[outer])["projects"]] == [inner]
    assert [p["id"] for p in server("projects.get_all", shallow_search=True)["projects"]] == [outer]


def test_values_to_choose_filters_from(server: ServerCore) -> None:
    project = server("projects.create", name="a project", tags=["of the project"])["id"]
    inside = server("projects.create", name="a project/inside")["id"]
    parent = new_task(server, "the parent")
    parameters = {"Args": {"lr.x": {"value": "0.1"}}, "General": {"b": {"value": "2"}}}
    task = new_task(server, project=inside, parent=parent, tags=["t1"], system_tags=["s1"], hyperparams=parameters)
    new_task(server, project=inside, tags=["t2"])
    event = {"type": "training_stats_scalar", "task": task, "metric": "loss", "variant": "train", "iter": 1, "value": 1}
    server("events.add", **event)
    model = server("models.create", name="a model", uri="u", project=project, tags=["m1"], framework="PyTorch")["id"]
    server("models.add_or_update_metadata", model=model, metadata=[{"key": "acc", "value": "0.9"}])
    assert server("projects.get_task_tags", projects=[project])["tags"] == ["t1", "t2"]
    filtered = {"projects": [project], "include_system": True, "filter": {"system_tags": ["__$not", "s1"]}}
    assert server("projects.get_task_tags", **filtered) == {"tags": ["t2"], "system_tags": []}
    assert server("projects.get_model_tags", projects=[project])["tags"] == ["m1"]
    assert server("projects.get_project_tags")["tags"] == ["of the project"]
    assert server("organization.get_tags", include_system=True) == {"tags": ["m1", "t1", "t2"], "system_tags": ["s1"]}
    found = server("projects.get_hyper_parameters", project=project, page_size=1)
    assert found == {"total": 2, "remaining": 1, "parameters": [{"section": "Args", "name": "lr.x"}]}
    assert server("projects.get_hyper_parameters", project=project, include_subprojects=False)["total"] == 0
    assert server("projects.get_hyperparam_values", section="Args", name="lr.x") == {"total": 1, "values": ["0.1"]}
    assert server("projects.get_model_metadata_keys", project=project)["keys"] == ["acc"]
    assert server("projects.get_model_metadata_values", key="acc")["values"] == ["0.9"]
    (metric,) = server("projects.get_unique_metric_variants", project=project)["metrics"]
    assert (metric["metric"], metric["variant"], len(metric["metric_hash"])) == ("loss", "train", 32)
    assert [found["id"] for found in server("projects.get_task_parents", projects=[project])["parents"]] == [parent]
    assert [user["name"] for user in server("projects.get_user_names", projects=[project])["users"]] == [
        "administrator"
    ]
    assert server("models.get_frameworks", projects=[project])["frameworks"] == ["PyTorch"]
    counted = server("organization.get_entities_count", tasks={"project": [inside]}, models={}, reports={}, projects={})
    assert counted == {"tasks": 2, "models": 1, "reports": 0, "projects": 2}
    companies = server("organization.get_user_companies")["companies"]
    assert [owner["name"] for owner in companies[0]["owners"]] == ["administrator"]


# Events


def image(task: str, iteration: int, metric: str = "m", variant: str = "v", **fields: Any) -> dict[str, Any]:
    own = {"metric": metric, "variant": variant, "iter": iteration, "url": f"{metric} {variant} {iteration}"}
    return {"type": "training_debug_image", "task": task, **own, **fields}


@pytest.mark.parametrize("kind", ["debug_image", "plot"])
def test_samples_are_looked_through_one_by_one(server: ServerCore, kind: str) -> None:
    task = new_task(server)
    type = {"debug_image": "training_debug_image", "plot": "plot"}[kind]
    empty = server(f"events.get_{kind}_sample", task=task, metric="m", variant="v")
    assert (empty["event"], empty["min_iteration"], empty["max_iteration"]) == (None, None, None)
    for iteration in range(2):
        for metric in ("m", "n"):
            server("events.add", **image(task, iteration, metric, type=type))

    def place(answer: dict[str, Any]) -> tuple[str, int] | None:
        return answer["event"] and (answer["event"]["metric"], answer["event"]["iter"])

    found = server(f"events.get_{kind}_sample", task=task, metric="m", variant="v")
    assert (place(found), found["min_iteration"], found["max_iteration"]) == (("m", 1), 0, 1)
    call = f"events.next_{kind}_sample"
    assert place(server(call, task=task, scroll_id=found["scroll_id"], navigate_earlier=False)) is None
    assert place(server(call, task=task, scroll_id=found["scroll_id"])) == ("m", 0)
    everything = {"task": task, "metric": "m", "variant": "v", "navigate_current_metric": False}
    found = server(f"events.get_{kind}_sample", **everything)
    assert place(server(call, task=task, scroll_id=found["scroll_id"], navigate_earlier=False)) == ("n", 1)
    assert place(server(call, task=task, scroll_id=found["scroll_id"])) == ("n", 0)
    assert place(server(call, task=task, scroll_id=found["scroll_id"], next_iteration=True)) == ("n", 0)
    asked = {"task": task, "metric": "m", "iteration": 0}
    assert place(server(f"events.get_{kind}_sample", **asked)) == ("m", 0)
    assert server.administrator.ask(call, {"task": task, "scroll_id": "x"}).code == "400/12"


def test_the_plots_of_a_metric_are_looked_through_together(server: ServerCore) -> None:
    task = new_task(server)
    for iteration in range(2):
        for metric, variant in (("m", "a"), ("m", "b"), ("n", "c")):
            server("events.add", **image(task, iteration, metric, variant, type="plot"))
    answer = server("events.get_plot_sample", task=task, metric="m", navigate_current_metric=False)

    def places() -> list[tuple[str, str, int]]:
        return [(event["metric"], event["variant"], event["iter"]) for event in answer["events"]]

    assert places() == [("m", "a", 1), ("m", "b", 1)]
    assert (answer["min_iteration"], answer["max_iteration"]) == (0, 1)
    steps: list[tuple[dict[str, bool], list[tuple[str, str, int]]]] = [
        ({"navigate_earlier": False}, [("n", "c", 1)]),
        ({"navigate_earlier": False}, []),
        ({}, [("m", "a", 1), ("m", "b", 1)]),
        ({}, [("n", "c", 0)]),
        ({"next_iteration": True, "navigate_earlier": False}, [("m", "a", 1), ("m", "b", 1)]),
        ({"next_iteration": True}, [("n", "c", 0)]),
    ]
    for step, expected in steps:
        answer = server("events.next_plot_sample", task=task, scroll_id=answer["scroll_id"], **step)
        assert places() == expected


@pytest.mark.parametrize("call", ["debug_images", "plots"])
def test_pages_of_iterations_are_turned_back(server: ServerCore, call: str) -> None:
    task = new_task(server)
    kind = {"debug_images": "training_debug_image", "plots": "plot"}[call]
    for iteration in range(7):
        server("events.add", **image(task, iteration, "m", type=kind))
    scroll, pages = "", []
    for earlier in (True, True, True, False, False, True):
        answer = server(f"events.{call}", metrics=[{"task": task}], iters=4, scroll_id=scroll, navigate_earlier=earlier)
        scroll = answer["scroll_id"]
        pages.append([iteration["iter"] for iteration in answer["metrics"][0]["iterations"]])
    assert pages == [[6, 5, 4, 3], [2, 1, 0], [], [3, 4, 5, 6], [], [2, 1, 0]]


def test_metrics_of_tasks_are_listed_and_compared(server: ServerCore) -> None:
    tasks = [new_task(server, name) for name in ("one", "two")]
    for task in tasks:
        for iteration in range(20):
            event = {"type": "training_stats_scalar", "metric": "loss", "variant": "train", "value": iteration}
            server("events.add", task=task, iter=iteration, **event)
        server("events.add", **image(task, 3, "confusion", type="plot"))
    asked = {"tasks": tasks, "event_type": "plot"}
    assert server("events.get_task_metrics", **asked)["metrics"] == [
        {"task": task, "metrics": ["confusion"]} for task in sorted(tasks)
    ]
    assert server("events.get_multi_task_metrics", **asked)["metrics"] == [{"metric": "confusion", "variants": ["v"]}]
    task = tasks[0]
    assert server("events.get_scalar_metrics_and_variants", task=task)["metrics"] == {"loss": ["train"]}
    curves = server("events.multi_task_scalar_metrics_iter_histogram", tasks=tasks)["metrics"]["loss"]["train"]
    assert {id: (curve["name"], len(curve["x"])) for id, curve in curves.items()} == {
        tasks[0]: ("one", 20),
        tasks[1]: ("two", 20),
    }
    plots = server("events.get_multi_task_plots", tasks=tasks)
    assert plots["plots"]["confusion"]["v"][task]["3"]["plots"][0]["task"] == task
    assert plots["returned"] == 2
    (latest,) = server("events.get_task_latest_scalar_values", task=task)["metrics"]
    assert latest == {"name": "loss", "variants": [{"name": "train", "last_value": 19.0, "last_100_value": 9.5}]}
    data = server("events.get_scalar_metric_data", task=task, metric="loss")
    assert (data["total"], data["events"][5]["value"]) == (20, 5.0)
    shown = server("events.plots", metrics=[{"task": task}])["metrics"][0]["iterations"]
    assert [iteration["iter"] for iteration in shown] == [3]


def test_raw_points_are_paged_without_gaps(server: ServerCore) -> None:
    task = new_task(server)
    for iteration in (-(2**31), *range(1, 10)):
        event = {"type": "training_stats_scalar", "metric": "m", "variant": "v", "value": iteration}
        server("events.add", task=task, iter=iteration, **event)
    asked: dict[str, Any] = {"task": task, "metric": {"metric": "m", "variants": ["v"]}, "batch_size": 4}
    page = server("events.scalar_metrics_iter_raw", **asked, count_total=True)
    assert page["total"] == 10
    seen: list[int] = []
    while page["returned"]:
        seen += page["variants"]["v"]["iter"]
        page = server("events.scalar_metrics_iter_raw", **asked, scroll_id=page["scroll_id"])
    assert seen == [-(2**31), *range(1, 10)]


def test_vectors_and_consoles_are_read_and_deleted(server: ServerCore) -> None:
    task = new_task(server)
    server("events.add", type="training_stats_vector", task=task, metric="m", variant="v", iter=1, values=[1, 2])
    assert server("events.get_vector_metrics_and_variants", task=task)["metrics"] == {"m": ["v"]}
    (vector,) = server("events.vector_metrics_iter_histogram", task=task, metric="m", variant="v")["images"]
    assert vector["values"] == [1, 2]
    for minutes in (60, 0):
        moment = int(server.clock.now().timestamp() * 1000) - minutes * 60_000
        server("events.add", type="log", task=task, msg=f"{minutes} minutes ago", timestamp=moment)
    assert server("events.clear_task_log", task=task, threshold_sec=600) == {"deleted": 1}
    assert server("events.get_task_log", task=task)["events"][0]["msg"] == "0 minutes ago"
    model = server("models.create", name="a model", uri="u")["id"]
    server("events.add", **image(model, 0, model_event=True))
    assert server("events.delete_for_model", model=model) == {"deleted": True}


# Over time


def test_usage_of_workers_is_kept_over_time(server: ServerCore) -> None:
    start = int(server.clock.now().timestamp())
    task = new_task(server)
    reports = [("one", {"cpu_usage": [10, 20], "memory_used": 50}, task), ("two", {"cpu_usage": [5]}, None)]
    for _ in range(3):
        for worker, stats, runs in reports:
            moment = int(server.clock.now().timestamp() * 1000)
            server("workers.status_report", worker=worker, timestamp=moment, machine_stats=stats, task=runs)
        server.clock.advance(40)
    categories = server("workers.get_metric_keys")["categories"]
    assert {item["name"]: item["metric_keys"] for item in categories} == {
        "cpu": ["cpu_usage"],
        "memory": ["memory_used"],
    }
    assert server.administrator.ask("workers.get_metric_keys", {"worker_ids": ["none"]}).code == "400/1005"
    period = {"from_date": start, "to_date": start + 120, "interval": 10}
    items = [{"key": "cpu_usage", "aggregation": "avg"}, {"key": "cpu_usage", "aggregation": "max"}]
    one, _ = server("workers.get_stats", **period, items=items)["workers"]
    (cpu,) = one["metrics"]
    assert (one["worker"], cpu["dates"]) == ("one", [start * 1000 + step * 40_000 for step in range(3)])
    assert [stat["values"] for stat in cpu["stats"]] == [[15.0] * 3, [20.0] * 3]
    split = server("workers.get_stats", **period, items=items[:1], split_by_variant=True, worker_ids=["one"])["workers"]
    assert [metric["variant"] for metric in split[0]["metrics"]] == ["0", "1"]
    activity = server("workers.get_activity_report", **period)
    assert (activity["total"]["counts"], activity["active"]["counts"]) == ([2, 2, 2], [1, 1, 1])
    assert server("workers.get_count") == {"count": 2}
    server.sweep(days=15)
    assert server.administrator.ask("workers.get_metric_keys", {}).code == "400/1005"


def test_lengths_of_queues_are_kept_over_time(server: ServerCore) -> None:
    start = int(server.clock.now().timestamp())
    queue = server("queues.get_default")["id"]
    server("tasks.enqueue", task=new_task(server))
    server.sweep(seconds=60)
    server("tasks.enqueue", task=new_task(server))
    period = {"from_date": start, "to_date": start + 120, "interval": 60}
    (found,) = server("queues.get_queue_metrics", **period, queue_ids=[queue])["queues"]
    assert (found["queue"], found["queue_lengths"], found["avg_waiting_times"]) == (queue, [1, 1], [0.0, 60.0])
    assert server.administrator.ask("queues.get_queue_metrics", {**period, "to_date": start}).code == "400/16"
    assert server.administrator.ask("queues.get_queue_metrics", {**period, "to_date": start + 10**9}).code == "400/12"


# Reports, pipelines, users


def test_a_report_is_a_hidden_task_in_a_hidden_project(server: ServerCore) -> None:
    made = server("reports.create", name="Rep1", comment="c", tags=["hello"], report="a text")
    assert server("tasks.get_all")["tasks"] == []
    (found,) = server("reports.get_all_ex", _any_={"fields": ["name", "report"], "pattern": "text"})["tasks"]
    assert (found["id"], found["type"], set(found["system_tags"])) == (made["id"], "report", {"hidden", "reports"})
    assert server("projects.get_all", name=r"^\.reports$")["projects"] == []
    assert server("reports.get_tags") == {"tags": ["hello"]}
    server("reports.publish", task=made["id"])
    refused = server.administrator.ask("reports.update", {"task": made["id"], "report": "other"})
    assert refused.code == "400/110"
    server("reports.update", task=made["id"], name="new name")
    folder = server("reports.move", task=made["id"], project_name="of reports")["project_id"]
    assert server("projects.get_by_id", project=folder)["project"]["name"] == "of reports/.reports"
    assert server("projects.get_all", id=[made["project_id"]])["projects"] == []
    assert server.administrator.ask("reports.delete", {"task": made["id"]}).code == "400/123"
    server("reports.archive", task=made["id"])
    assert server("reports.unarchive", task=made["id"]) == {"unarchived": 1}
    assert server("reports.delete", task=made["id"], force=True) == {"deleted": True}
    assert server.administrator.ask("reports.update", {"task": new_task(server), "name": "new"}).code == "400/150"


def test_a_report_shows_data_of_tasks(server: ServerCore) -> None:
    task = new_task(server, "shown")
    server("events.add", **image(task, 1))
    server("events.add", **image(task, 1, type="plot"))
    server("events.add", type="training_stats_scalar", task=task, metric="m", variant="v", iter=1, value=1)
    asked = {"debug_images": {"metrics": []}, "plots": {"metrics": [{"metric": "m"}]}}
    found = server("reports.get_task_data", id=[task], only_fields=["name"], **asked, scalar_metrics_iter_histogram={})
    assert [shown["name"] for shown in found["tasks"]] == ["shown"]
    assert len(found["debug_images"][0]["iterations"][0]["events"]) == 1
    assert found["plots"]["m"]["v"][task]["1"]["name"] == "shown"
    assert found["scalar_metrics_iter_histogram"]["m"]["v"][task]["y"] == [1.0]


def test_a_pipeline_is_started_as_a_copy_with_other_arguments(server: ServerCore) -> None:
    arguments = {"Args": {"n": {"value": "1", "type": "int"}}}
    project = server("projects.create", name="of pipelines")["id"]
    task = new_task(server, "a pipeline #7", type="controller", hyperparams=arguments, project=project)
    answer = server("pipelines.start_pipeline", task=task, args=[{"name": "n", "value": "2"}])
    assert answer["enqueued"] is True
    copy = server("tasks.get_by_id", task=answer["pipeline"])["task"]
    assert (copy["status"], copy["hyperparams"]["Args"]["n"]["value"]) == ("queued", "2")
    assert copy["hyperparams"]["Args"]["n"]["type"] == "int" and copy["name"].startswith("a pipeline #")
    step = new_task(server, parent=copy["id"])
    server("pipelines.delete_runs", project=project, ids=[copy["id"]])
    assert [found["id"] for found in server("tasks.get_all")["tasks"]] == [task]
    assert step not in [found["id"] for found in server("tasks.get_all", search_hidden=True)["tasks"]]


def test_each_user_has_preferences_that_no_other_sees(server: ServerCore) -> None:
    alice, bob = server.user("alice"), server.user("bob")
    assert alice("users.set_preferences", preferences={"a.b": 1, "c": [2]})["fields"] == {"a": {"b": 1}, "c": [2]}
    assert alice("users.get_preferences")["preferences"] == {"a": {"b": 1}, "c": [2]}
    assert bob("users.get_preferences")["preferences"] == {}
    assert all("preferences" not in user for user in bob("users.get_all")["users"])
    for asked in ({"only_fields": ["preferences"]}, {"order_by": ["preferences"]}, {"preferences.a.b": [1]}):
        assert bob.ask("users.get_all", asked).code.startswith("400/")
    assert alice.ask("users.set_preferences", {"preferences": {"..": 1}}).code == "400/12"
    assert alice.ask("users.set_preferences", {"preferences": {"a": "x" * 300_000}}).code == "400/12"


def own_id(caller: Caller) -> str:
    return str(caller("users.get_current_user")["user"]["id"])


def test_users_are_read_by_all_and_changed_by_themselves_and_administrators(server: ServerCore) -> None:
    alice, bob = server.user("alice"), server.user("bob")
    new_task(alice)
    assert [user["name"] for user in bob("users.get_all_ex", active_in_projects=[])["users"]] == ["alice"]
    assert bob("users.get_by_id", user=own_id(alice))["user"]["name"] == "alice"
    assert bob.ask("users.get_by_id", {"user": "none"}).code == "400/301"
    assert bob.ask("users.update", {"user": own_id(alice), "name": "x"}).code == "403/20"
    alice("users.update", user=own_id(alice), name="Alice")
    assert bob("users.get_by_id", user=own_id(alice))["user"]["name"] == "Alice"
    assert bob.ask("auth.edit_user", {"user": own_id(bob), "role": "admin"}).code == "403/20"
    server("auth.edit_user", user=own_id(bob), role="admin")
    assert bob("users.get_current_user")["user"]["role"] == "admin"
    assert bob.ask("auth.edit_user", {"user": own_id(bob), "role": "user"}).code == "400/12"
    assert alice("auth.edit_credentials", access_key=alice.access_key, label="laptop") == {"updated": 1}
    assert [key["label"] for key in alice("auth.get_credentials")["credentials"]] == ["laptop"]


def test_how_to_log_in_is_answered_without_credentials(server: ServerCore) -> None:
    answer = server.ask("login.supported_modes", {}, "")
    assert (answer.code, answer.data["basic"]["enabled"], answer.data["sso"]) == ("200/0", True, {})
