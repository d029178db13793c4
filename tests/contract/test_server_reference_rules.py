"""Rules of ClearML's server that its source states: pipelines' steps, full projects, models of tasks, metrics."""

from __future__ import annotations

from typing import Any

import pytest
from server_core import ServerCore


def new_task(server: ServerCore, name: str = "a task", **fields: Any) -> str:
    return str(server("tasks.create", **{"name": name, "type": "training", **fields})["id"])


def refused(server: ServerCore, action: str, **fields: Any) -> str:
    return server.administrator.ask(action, fields).code


def event(task: str, metric: str = "m", **fields: Any) -> dict[str, Any]:
    return {"type": "training_stats_scalar", "task": task, "metric": metric, "variant": "v", "iter": 0, **fields}


# Pipelines


@pytest.fixture
def run(server: ServerCore) -> tuple[str, str, str]:
    """A pipeline's run with two steps, one of them in a queue."""
    controller = new_task(server, type="controller")
    steps = [new_task(server, f"step {number}", parent=controller) for number in range(2)]
    server("tasks.enqueue", task=steps[0])
    return controller, steps[0], steps[1]


def statuses(server: ServerCore, ids: tuple[str, ...]) -> list[str]:
    return [server("tasks.get_by_id", task=id)["task"]["status"] for id in ids]


def test_a_pipeline_is_stopped_with_its_steps(server: ServerCore, run: tuple[str, str, str]) -> None:
    server("tasks.enqueue", task=run[0])
    server("tasks.stop", task=run[0])
    assert statuses(server, run) == ["stopped", "queued", "created"]
    server("tasks.enqueue", task=run[0])
    server("tasks.stop_many", ids=[run[0]], include_pipeline_steps=True)
    assert statuses(server, run) == ["stopped", "stopped", "created"]


def test_a_pipeline_is_archived_and_brought_back_with_its_steps(server: ServerCore, run: tuple[str, str, str]) -> None:
    def archived() -> int:
        return len(server("tasks.get_all", id=list(run), system_tags=["archived"])["tasks"])

    for archive in ("archive", "archive_many"):
        ids = {"tasks" if archive == "archive" else "ids": [run[0]]}
        server(f"tasks.{archive}", **ids, include_pipeline_steps=True)
        assert archived() == 3
        server("tasks.unarchive_many", ids=[run[0]], include_pipeline_steps=True)
        assert archived() == 0
    assert statuses(server, run) == ["created"] * 3


def test_a_pipeline_is_deleted_with_its_steps(server: ServerCore, run: tuple[str, str, str]) -> None:
    server("tasks.delete", task=run[0], force=True, include_pipeline_steps=True)
    assert server("tasks.get_all", id=list(run))["tasks"] == []


def test_steps_of_others_are_not_deleted_along(server: ServerCore) -> None:
    owner = server.user("owner")
    controller = owner("tasks.create", name="a run", type="controller")["id"]
    step = new_task(server, parent=controller)
    assert owner.ask("tasks.delete", {"task": controller, "include_pipeline_steps": True}).code == "403/20"
    assert statuses(server, (controller, step)) == ["created", "created"]


def test_a_step_of_another_user_keeps_a_run_from_being_deleted(server: ServerCore) -> None:
    owner = server.user("owner")
    project = server("projects.create", name="of a pipeline")["id"]
    runs = [owner("tasks.create", name="a run", type="controller", project=project)["id"] for _ in range(2)]
    step = new_task(server, parent=runs[0])
    assert owner.ask("pipelines.delete_runs", {"project": project, "ids": runs[:1]}).code == "403/20"
    assert statuses(server, (runs[0], step)) == ["created", "created"]


def test_a_pipelines_next_runs_are_not_steps_of_the_one_they_were_copied_from(server: ServerCore) -> None:
    project = server("projects.create", name="of a pipeline")["id"]
    first = new_task(server, type="controller", project=project)
    step = new_task(server, parent=first, project=project)
    second = server("pipelines.start_pipeline", task=first)["pipeline"]
    third = server("pipelines.start_pipeline", task=second)["pipeline"]
    server("tasks.stop", task=first, force=True, include_pipeline_steps=True)
    assert statuses(server, (second, third)) == ["queued", "queued"]
    server("pipelines.delete_runs", project=project, ids=[first])
    left = server("tasks.get_all", id=[first, step, second, third])["tasks"]
    assert {task["id"] for task in left} == {second, third}


def test_one_run_of_a_pipeline_stays(server: ServerCore) -> None:
    project = server("projects.create", name="of a pipeline")["id"]
    runs = [new_task(server, type="controller", project=project) for _ in range(2)]
    other = new_task(server, project=project)
    assert refused(server, "pipelines.delete_runs", project=project, ids=runs) == "400/160"
    answer = server("pipelines.delete_runs", project=project, ids=[runs[0], other])
    assert [removed["id"] for removed in answer["succeeded"]] == [runs[0]]
    assert {task["id"] for task in server("tasks.get_all", project=[project])["tasks"]} == {runs[1], other}


# Projects


@pytest.mark.parametrize(("kind", "type", "code"), [("pipeline", "controller", 413), ("dataset", "testing", 406)])
def test_a_project_with_pipelines_or_data_sets_is_full(server: ServerCore, kind: str, type: str, code: int) -> None:
    project = server("projects.create", name="above")["id"]
    inner = server("projects.create", name=f"above/.{kind}s/one", system_tags=[kind])["id"]
    task = new_task(server, type=type, project=inner)
    counts = server("projects.validate_delete", project=project)
    assert (counts[f"{kind}s"], counts["tasks"], counts["non_archived_tasks"]) == (1, 0, 0)
    assert refused(server, "projects.delete", project=project) == f"400/{code}"
    server("tasks.archive", tasks=[task])
    assert server("projects.validate_delete", project=project)[f"{kind}s"] == 0
    server("projects.delete", project=project)


def test_what_is_archived_is_not_counted_as_a_projects_own(server: ServerCore) -> None:
    project = server("projects.create", name="counted")["id"]
    new_task(server, project=project)
    new_task(server, project=project, system_tags=["archived"])
    server("models.create", name="a model", uri="u", project=project, system_tags=["archived"])
    found = server("projects.get_all_ex", id=[project], check_own_contents=True)["projects"][0]
    assert (found["own_tasks"], found["own_models"]) == (1, 0)


def test_figures_of_a_project_are_of_one_state_or_by_null_of_both(server: ServerCore) -> None:
    project = server("projects.create", name="in both states")["id"]
    for system_tags in ([], ["archived"]):
        new_task(server, project=project, system_tags=system_tags)
    for wanted, states in (({}, {"active"}), ({"stats_for_state": None}, {"active", "archived"})):
        [found] = server("projects.get_all_ex", id=[project], include_stats=True, **wanted)["projects"]
        assert {state for state, of in found["stats"].items() if of["total_tasks"] == 1} == states


def test_projects_are_counted_by_who_is_active(server: ServerCore) -> None:
    user = server.user("active")
    project = user("projects.create", name="with a task/inside")["id"]
    id = user("users.get_current_user")["user"]["id"]
    assert server("organization.get_entities_count", projects={}, active_users=[id])["projects"] == 0
    user("tasks.create", name="a task", type="training", project=project)
    assert server("organization.get_entities_count", projects={}, active_users=[id])["projects"] == 2
    assert server("organization.get_entities_count", projects={}, active_users=[id], limit=1)["projects"] == 1


def test_metadata_of_models_without_a_project(server: ServerCore) -> None:
    project = server("projects.create", name="of models")["id"]
    for key, fields in (("outside", {}), ("inside", {"project": project})):
        metadata = {key: {"key": key, "type": "str", "value": "1"}}
        server("models.create", name="a model", uri="u", metadata=metadata, **fields)
    assert server("projects.get_model_metadata_keys")["keys"] == ["inside", "outside"]
    assert server("projects.get_model_metadata_keys", include_subprojects=False)["keys"] == ["outside"]


def test_reports_of_a_project_are_in_its_folder(server: ServerCore) -> None:
    project = server("projects.create", name="with reports")["id"]
    inside = server("reports.create", name="inside", project=project)["id"]
    at_top = server("reports.create", name="at the top")["id"]

    def found(wanted: object) -> list[str]:
        return [report["id"] for report in server("reports.get_all_ex", project=wanted)["tasks"]]

    assert (found(project), found([project]), found([None])) == ([inside], [inside], [at_top])
    assert refused(server, "reports.update", task=new_task(server), name="not a report") == "400/150"


def test_a_report_shows_models_too(server: ServerCore) -> None:
    model = server("models.create", name="a model", uri="u", ready=False)["id"]
    for iteration in (1, -(2**31)):
        server("events.add", **event(model, value=3, model_event=True, iter=iteration))
    wanted: dict[str, Any] = {"scalar_metrics_iter_histogram": {}, "single_value_metrics": {}}
    found = server("reports.get_task_data", id=[model], only_fields=["name"], model_events=True, **wanted)
    assert found["tasks"] == [{"id": model, "name": "a model"}]
    assert list(found["scalar_metrics_iter_histogram"]["m"]["v"]) == [model]
    assert [(of["task"], of["task_name"], len(of["values"])) for of in found["single_value_metrics"]] == [
        (model, "a model", 1)
    ]


# Models, users, workers


def test_a_model_made_for_a_task_takes_over_what_the_task_says(server: ServerCore) -> None:
    first = server("models.create", name="the input", uri="u")["id"]
    execution = {"framework": "PyTorch", "model_labels": {"cat": 1}, "model": first}
    task = new_task(server, execution=execution)
    made = server("models.update_for_task", task=task, uri="http://there/out.pt")["id"]
    found = server("models.get_by_id", model=made)["model"]
    assert (found["framework"], found["labels"], found["parent"]) == ("PyTorch", {"cat": 1}, first)
    server("models.update_for_task", task=task, override_model_id=first)
    outputs = server("tasks.get_by_id", task=task)["task"]["models"]["output"]
    assert outputs == [{"model": first, "name": "Output Model"}]
    assert refused(server, "models.update_for_task", task=task) == "400/11"
    server("tasks.started", task=task)
    server("tasks.completed", task=task)
    assert refused(server, "models.update_for_task", task=task, uri="http://there/late.pt") == "400/110"


def test_models_are_listed_with_the_number_of_their_labels(server: ServerCore) -> None:
    for labels in ({}, {"cat": 1, "dog": 2}):
        server("models.create", name="a model", uri="u", labels=labels)
    found = server("models.get_all_ex", include_stats=True, only_fields=["name"], order_by=["created"])["models"]
    assert sorted(model["stats"]["labels_count"] for model in found) == [0, 2]
    assert all("stats" not in model for model in server("models.get_all_ex")["models"])


def test_who_has_made_a_model_is_active(server: ServerCore) -> None:
    user = server.user("modeller")
    user("models.create", name="a model", uri="u")
    names = [found["name"] for found in server("users.get_all_ex", active_in_projects=[])["users"]]
    assert names == ["modeller"]
    owners = server("organization.get_user_companies")["companies"][0]["owners"]
    assert all("avatar" in owner for owner in owners)


def test_a_workers_queues_have_the_names_that_are_shown(server: ServerCore) -> None:
    queue = server("queues.create", name="gpu", display_name="Large GPUs")["id"]
    server("workers.register", worker="w", queues=[queue])
    worker = server("workers.get_all")["workers"][0]
    assert [(of["name"], of["display_name"]) for of in worker["queues"]] == [("gpu", "Large GPUs")]
    shown = server("queues.get_all_ex", name="gpu")["queues"][0]["workers"]
    assert [of["key"] for of in shown] == [worker["key"]]


def test_a_completed_task_says_whether_it_was_published(server: ServerCore) -> None:
    task = new_task(server)
    server("tasks.started", task=task)
    assert server("tasks.completed", task=task)["published"] == 0
    assert server("tasks.completed", task=task, publish=True)["published"] == 1


def test_a_reset_names_the_files_that_it_leaves(server: ServerCore) -> None:
    artifacts = [{"key": "in", "uri": "kept", "mode": "input"}, {"key": "out", "uri": "left"}]
    task = new_task(server, execution={"artifacts": artifacts})
    assert server("tasks.reset", task=task, return_file_urls=True)["urls"]["artifact_urls"] == ["left"]


# Metrics


def test_a_console_is_read_and_cleared_by_metric(server: ServerCore) -> None:
    task = new_task(server)
    for number, metric in enumerate((None, "a", "b")):
        server("events.add", type="log", task=task, msg=str(number), metric=metric)

    def total(**wanted: Any) -> tuple[int, int]:
        found = server("events.get_task_log", task=task, **wanted)
        return found["total"], found["returned"]

    assert (total(), total(metrics=[{"metric": "a"}])) == ((3, 3), (1, 1))
    server("events.clear_task_log", task=task, include_metrics=["b"])
    assert total() == (2, 2)
    server("events.clear_task_log", task=task, exclude_metrics=["a"])
    assert (total(), total(metrics=[{"metric": "a"}])) == ((1, 1), (1, 1))
    server("events.clear_task_log", task=task)
    assert total() == (0, 0)


def test_metrics_of_tasks_are_listed_whatever_their_type(server: ServerCore) -> None:
    task = new_task(server)
    server("events.add", **event(task, "curve", value=1))
    server("events.add", **event(task, "figure", type="plot", plot_str="{}"))
    found = server("events.get_multi_task_metrics", tasks=[task])["metrics"]
    assert found == [{"metric": name, "variants": ["v"]} for name in ("curve", "figure")]


def test_single_values_are_filtered_by_metric(server: ServerCore) -> None:
    task = new_task(server)
    server("events.add", **event(task, value=1, iter=-(2**31)))
    for metrics, tasks in (([{"metric": "m", "variants": ["v"]}], 1), ([{"metric": "other"}], 0)):
        assert len(server("events.get_task_single_value_metrics", tasks=[task], metrics=metrics)["tasks"]) == tasks


def test_pages_of_raw_points_have_the_size_of_the_first(server: ServerCore) -> None:
    task = new_task(server)
    for iteration in range(5):
        server("events.add", **event(task, value=iteration, iter=iteration))
    wanted = {"task": task, "metric": {"metric": "m"}}
    answer, sizes = server("events.scalar_metrics_iter_raw", **wanted, batch_size=2), []
    while answer["returned"]:
        sizes.append(answer["returned"])
        answer = server("events.scalar_metrics_iter_raw", **wanted, scroll_id=answer["scroll_id"])
    assert sizes == [2, 2, 1]
    assert refused(server, "events.scalar_metrics_iter_raw", **wanted, scroll_id="x") == "400/12"


def test_times_of_several_fields_have_open_ends(server: ServerCore) -> None:
    task = new_task(server)
    fields = ["created", "started"]
    for key, found in (("_any_", [task]), ("_all_", [])):
        wanted = {"datetime": ["2029-12-31T00:00:00", None], "fields": fields}
        assert [of["id"] for of in server("tasks.get_all", **{key: wanted})["tasks"]] == found


def test_events_of_a_model_show_how_far_it_is(server: ServerCore) -> None:
    model = server("models.create", name="a model", uri="u", ready=False)["id"]
    log = {"type": "log", "task": model, "msg": "text", "model_event": True}
    assert refused(server, "events.add", **log) == "400/131"
    for iteration in range(2):
        labelled: dict[str, Any] = {"value": iteration, "iter": iteration, "x_axis_label": "epoch"}
        server("events.add", **event(model, model_event=True, **labelled))
    found = server("models.get_all_ex", id=[model], only_fields=["last_metrics", "last_iteration"])["models"][0]
    [variants] = found["last_metrics"].values()
    [latest] = variants.values()
    assert (found["last_iteration"], latest["value"], latest["min_value"]) == (1, 1, 0)
    curve = server("events.scalar_metrics_iter_histogram", task=model, model_events=True)["m"]["v"]
    assert (curve["x"], latest["x_axis_label"], curve["x_axis_label"]) == ([0, 1], "epoch", "epoch")


def test_parameters_are_ordered_by_their_values_as_numbers(server: ServerCore) -> None:
    for value in ("11", "2", "1"):
        new_task(server, f"task {value}", hyperparams={"Args": {"n": {"value": value}}})
    for order, found in (("hyperparams.Args.n", ["1", "2", "11"]), ("-hyperparams.Args.n", ["11", "2", "1"])):
        listed = server("tasks.get_all", order_by=[order])["tasks"]
        assert [task["hyperparams"]["Args"]["n"]["value"] for task in listed] == found


def test_projects_show_the_data_sets_in_them(server: ServerCore) -> None:
    above = server("projects.create", name="above")["id"]
    inner = server("projects.create", name="above/one", system_tags=["dataset"], tags=["b", "a"])["id"]
    version = new_task(server, type="data_processing", project=inner, system_tags=["dataset"])

    def shown(id: str, **wanted: Any) -> dict[str, Any]:
        return dict(server("projects.get_all_ex", id=[id], **wanted)["projects"][0])

    assert shown(inner, include_dataset_stats=True)["dataset_stats"] is None
    server("tasks.edit", task=version, runtime={"ds_file_count": 2, "ds_total_size": 1000})
    assert shown(inner, include_dataset_stats=True)["dataset_stats"] == {"file_count": 2, "total_size": 1000}
    found = shown(above, children_type="dataset", include_stats=True, check_own_contents=True)
    assert (found["own_datasets"], found["stats"]["datasets"]) == (1, {"count": 1, "tags": ["a", "b"]})
    assert "own_tasks" not in found


def test_projects_count_the_reports_in_hidden_ones_where_reports_are_asked_for(server: ServerCore) -> None:
    project = server("projects.create", name="with reports")["id"]
    server("reports.create", name="a report", project=project, tags=["t"])
    wanted = {"children_type": "report", "children_tags": ["t"], "include_stats": True}
    [found] = server("projects.get_all_ex", id=[project], **wanted)["projects"]
    assert (found["stats"]["active"]["total_tasks"], found["sub_projects"]) == (1, [])


def test_usage_of_workers_has_a_value_in_every_interval(server: ServerCore) -> None:
    now = server.clock.now().timestamp()
    for seconds, usage in ((0, 10), (100, 30)):
        moment = (now + seconds) * 1000
        server("workers.status_report", worker="w", timestamp=moment, machine_stats={"cpu_usage": usage})
    period = {"from_date": now, "to_date": now + 200, "interval": 1}
    items = [{"key": "cpu_usage", "aggregation": "max"}]
    [metric] = server("workers.get_stats", items=items, **period)["workers"][0]["metrics"]
    assert (metric["stats"][0]["values"], len(metric["dates"])) == ([10, 0, 30, 0, 0], 5)
    assert server("workers.get_activity_report", **period)["total"]["counts"] == [1, 0, 1, 0, 0]
    backwards = {**period, "to_date": now - 1}
    assert refused(server, "workers.get_activity_report", **backwards) == "400/16"
