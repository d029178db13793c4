"""Console, scalars, plots and images on the embedded server (docs/internals/clearml-protocol.md#event-types)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from http_api import Answered, Api


def send(api: Api, *events: dict[str, Any]) -> Answered:
    return api.ask("events.add_batch", "\n".join(json.dumps(event) for event in events).encode())


def log(task: str, text: str, timestamp: int, **fields: Any) -> dict[str, Any]:
    return {"type": "log", "task": task, "msg": text, "timestamp": timestamp, "level": "INFO", "worker": "w", **fields}


def scalar(
    task: str, iteration: int, value: Any, metric: str = "loss", variant: str = "train", **fields: Any
) -> dict[str, Any]:
    return {
        "type": "training_stats_scalar",
        "task": task,
        "metric": metric,
        "variant": variant,
        "iter": iteration,
        "value": value,
        **fields,
    }


def texts(api: Api, **request: Any) -> list[str]:
    return [event["msg"] for event in api("events.get_task_log", **request)["events"]]


@pytest.fixture
def written(api: Api) -> str:
    """A task with the console lines "0" to "9" at the times 0 to 90 ms, and "9b" at 90 too."""
    task = api.task()
    events = [log(task, str(i), i * 10) for i in range(10)] + [log(task, "9b", 90)]
    assert send(api, *events).data == {"added": 11, "errors": 0, "errors_info": {}}
    return task


def test_console_is_read_in_both_directions_and_orders(api: Api, written: str) -> None:
    assert texts(api, task=written, batch_size=3) == ["9b", "9", "8"]
    assert texts(api, task=written, batch_size=3, order="asc") == ["8", "9", "9b"]
    assert texts(api, task=written, batch_size=3, navigate_earlier=False) == ["0", "1", "2"]
    assert texts(api, task=written, batch_size=3, navigate_earlier=False, order="desc") == ["2", "1", "0"]
    assert texts(api, task=written, batch_size=2, from_timestamp=50) == ["4", "3"]
    assert texts(api, task=written, batch_size=2, from_timestamp=50, navigate_earlier=False) == ["6", "7"]
    answer = api("events.get_task_log", task=written)
    assert (answer["returned"], answer["total"]) == (11, 11)


def test_lines_with_one_timestamp_are_on_one_page(api: Api, written: str) -> None:
    seen, since = [], None
    while page := api("events.get_task_log", task=written, batch_size=1, from_timestamp=since)["events"]:
        seen += [event["msg"] for event in page]
        since = page[-1]["timestamp"]
    assert seen == ["9b", "9", *"876543210"]


def test_a_chunk_is_kept_as_it_came(api: Api) -> None:
    task = api.task()
    chunk = "".join(f"line {i}\r\n" for i in range(5000)) + "ümläut\x1b[31m\0 no newline"
    send(api, log(task, chunk, 1))
    assert texts(api, task=task) == [chunk]


def test_halves_of_surrogate_pairs_do_not_cost_the_batch(api: Api) -> None:
    # Python writes undecodable output this way, and sends it.
    task = api.task()
    assert send(api, log(task, "bad \udce4 byte", 1), log(task, "good", 2)).data["added"] == 2
    assert texts(api, task=task, order="asc") == ["bad ? byte", "good"]


def test_one_bad_event_costs_itself_only(api: Api) -> None:
    task = api.task()
    answer = send(
        api,
        log(task, "good", 1),
        log("0" * 32, "of no task", 1),
        {"type": "surprise", "task": task},
        scalar(task, 1, "no number"),
        {"type": "log", "msg": "of no task"},
    )
    assert (answer.data["added"], answer.data["errors"]) == (1, 4)
    assert sum(answer.data["errors_info"].values()) == 4


@pytest.mark.parametrize("body", [b"", b'{"type": "log", "task": "none", "msg": "x"}', b'{"type": "nonsense"}'])
def test_batch_without_any_stored_event_is_refused(api: Api, body: bytes) -> None:
    assert api.ask("events.add_batch", body).code == "400/131"


def test_missing_time_and_worker_are_filled_in_and_spaces_in_types_are_underscores(api: Api) -> None:
    task = api.task()
    headers = {**api.headers, "X-ClearML-Worker": "laptop", "Content-Type": "application/json-lines"}
    body = json.dumps({"type": "log", "task": task, "msg": "x"}) + "\n"
    body += json.dumps({**scalar(task, 1, 2.5), "type": "training stats scalar", "timestamp": None})
    assert api.parsed(api.raw("/events.add_batch", "GET", data=body, headers=headers)).data["added"] == 2
    (event,) = api("events.get_task_log", task=task)["events"]
    assert event["worker"] == "laptop"
    assert event["timestamp"] > 1.7e12


def test_a_json_list_of_events_is_a_batch_too(api: Api) -> None:
    task = api.task()
    events = [log(task, "half a pair: \ud800", 1), scalar(task, 1, float("nan")), scalar(task, 2, 0.5)]
    assert api.ask("events.add_batch", json.dumps(events).encode()).data["added"] == 3
    assert texts(api, task=task) == ["half a pair: ?"]
    assert api("events.scalar_metrics_iter_histogram", task=task)["loss"]["train"]["y"] == [None, 0.5]


def test_scalars_come_back_as_curves_and_sending_again_overwrites(api: Api) -> None:
    task = api.task()
    send(api, *(scalar(task, i, i * 1.0, timestamp=1000 * i) for i in range(4)))
    send(api, scalar(task, 2, 9.0, timestamp=2000), scalar(task, 0, 7.0, variant="test"))
    curves = api("events.scalar_metrics_iter_histogram", task=task)
    assert curves["loss"]["train"] == {"name": "train", "x": [0, 1, 2, 3], "y": [0.0, 1.0, 9.0, 3.0]}
    assert curves["loss"]["test"]["y"] == [7.0]
    by_time = api("events.scalar_metrics_iter_histogram", task=task, key="timestamp", samples=0)
    assert by_time["loss"]["train"]["x"] == [0, 1000, 2000, 3000]
    by_date = api("events.scalar_metrics_iter_histogram", task=task, key="iso_time")
    assert by_date["loss"]["train"]["x"][1] == "1970-01-01T00:00:01.000+00:00"
    only = api("events.scalar_metrics_iter_histogram", task=task, metrics=[{"metric": "loss", "variants": ["test"]}])
    assert only == {"loss": {"test": curves["loss"]["test"]}}


def test_long_curves_are_averaged_into_the_samples_asked_for(api: Api) -> None:
    task = api.task()
    send(api, *(scalar(task, i, float(i)) for i in range(1000)))
    curve = api("events.scalar_metrics_iter_histogram", task=task, samples=10)["loss"]["train"]
    assert curve["x"] == list(range(0, 1000, 100))
    assert curve["y"][:2] == [49.5, 149.5]


def test_the_task_shows_its_latest_figures(api: Api) -> None:
    task = api.task()
    send(api, scalar(task, 1, 5.0), scalar(task, 2, 3.0), scalar(task, 7, 4.0), scalar(task, 3, float("nan")))
    found = api("tasks.get_by_id", task=task)["task"]
    metric, variant = (hashlib.md5(name.encode()).hexdigest() for name in ("loss", "train"))
    assert found["last_iteration"] == 7
    assert found["last_metrics"][metric][variant] == {
        "metric": "loss",
        "variant": "train",
        "value": 4.0,
        "min_value": 3.0,
        "min_value_iteration": 2,
        "max_value": 5.0,
        "max_value_iteration": 1,
        "first_value": 5.0,
        "first_value_iteration": 1,
        "mean_value": 4.0,
        "count": 3,
    }
    other = api.task()
    send(api, scalar(other, 1, 9.0))
    order = f"-last_metrics.{metric}.{variant}.value"
    assert [t["id"] for t in api("tasks.get_all", id=[task, other], order_by=[order])["tasks"]] == [other, task]


def test_single_values_are_not_in_the_histogram(api: Api) -> None:
    task = api.task("with values")
    send(api, scalar(task, -(2**31), 0.5, "Summary", "auc"))
    (found,) = api("events.get_task_single_value_metrics", tasks=[task])["tasks"]
    assert (found["task"], found["task_name"]) == (task, "with values")
    assert (found["values"][0]["variant"], found["values"][0]["value"]) == ("auc", 0.5)
    assert api("events.scalar_metrics_iter_histogram", task=task) == {}
    assert api("tasks.get_by_id", task=task)["task"]["last_iteration"] == 0


def test_plots_show_the_latest_iterations(api: Api) -> None:
    task = api.task()
    for i in range(3):
        send(
            api,
            {"type": "plot", "task": task, "metric": "p", "variant": "v", "iter": i, "plot_str": f'{{"data": {i}}}'},
        )
    latest = api("events.get_task_plots", task=task)["plots"]
    assert [(plot["iter"], plot["plot_str"]) for plot in latest] == [(2, '{"data": 2}')]
    assert [plot["iter"] for plot in api("events.get_task_plots", task=task, iters=2)["plots"]] == [2, 1]
    assert api("events.get_task_plots", task=task, metrics=[{"metric": "other"}])["plots"] == []


def test_images_are_paged_by_iteration(api: Api) -> None:
    task = api.task()
    for i in range(3):
        send(
            api,
            *(
                {
                    "type": "training_debug_image",
                    "task": task,
                    "metric": "m",
                    "variant": v,
                    "iter": i,
                    "url": f"u{i}{v}",
                    "key": "k",
                }
                for v in "ab"
            ),
        )
    wanted = [{"task": task, "metric": "m", "variants": ["a"]}]
    urls, scroll = [], None
    while True:
        page = api("events.debug_images", metrics=wanted, iters=2, scroll_id=scroll)
        if not page["metrics"][0]["iterations"]:
            break
        urls += [event["url"] for iteration in page["metrics"][0]["iterations"] for event in iteration["events"]]
        scroll = page["scroll_id"]
    assert urls == ["u2a", "u1a", "u0a"]


def test_events_of_all_kinds_are_scrolled_in_order_of_time(api: Api, written: str) -> None:
    send(api, scalar(written, 1, 1.0, timestamp=5), scalar(written, 2, 2.0, timestamp=15))
    only = api("events.get_task_events", task=written, event_type="training_stats_scalar", batch_size=1)
    assert (only["returned"], only["total"], only["events"][0]["value"]) == (1, 2, 1.0)
    rest = api("events.get_task_events", task=written, event_type="training_stats_scalar", scroll_id=only["scroll_id"])
    assert [event["iter"] for event in rest["events"]] == [2]
    everything = api("events.get_task_events", task=written, batch_size=4)["events"]
    assert [event["timestamp"] for event in everything] == [0, 5, 10, 15]
    newest = api("events.get_task_events", task=written, order="desc", batch_size=1)["events"]
    assert newest[0]["msg"] == "9b"


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_pages_of_events_of_one_moment_miss_none_and_repeat_none(api: Api, order: str, size: int) -> None:
    task = api.task()
    plot = {"type": "plot", "task": task, "metric": "p", "variant": "v", "iter": 1, "timestamp": 7, "plot_str": "{}"}
    image = {**plot, "type": "training_debug_image", "url": "u"}
    logs = [log(task, text, moment) for text, moment in (("a", 7), ("b", 7), ("c", 9))]
    send(api, *logs, *(scalar(task, i, 1.0, timestamp=7) for i in range(3)), plot, image)
    shown: list[Any] = []
    scroll = None
    while True:
        page = api("events.get_task_events", task=task, order=order, batch_size=size, scroll_id=scroll)
        assert page["total"] == 8
        if not page["events"]:
            break
        shown += page["events"]
        scroll = page["scroll_id"]
    whole = api("events.get_task_events", task=task)["events"]
    assert len(whole) == 8
    assert shown == (whole if order == "asc" else whole[::-1])


@pytest.mark.parametrize("scroll", ["1", "[7]", "[7,9,[1]]", "[7,0,[]]", f"[{10**30},0,[1]]", f"[7,0,[{10**30}]]", "x"])
def test_a_scroll_id_of_another_server_is_refused(api: Api, scroll: str) -> None:
    task = api.task()
    assert api.ask("events.get_task_events", {"task": task, "scroll_id": scroll}).code == "400/12"


def test_published_tasks_take_no_events_unless_allowed(api: Api) -> None:
    task = api.task()
    api("tasks.publish", task=task, force=True)
    assert send(api, log(task, "late", 1)).code == "400/131"
    assert send(api, log(task, "late", 1, allow_locked=True)).status == 200
    mixed = send(api, log(task, "a", 1, allow_locked=True), log(task, "b", 2))
    assert mixed.code == "400/12"


def test_events_of_models_go_with_the_model(api: Api) -> None:
    model = api("models.create", name="net", uri="u")["id"]
    assert send(api, scalar(model, 1, 1.0, model_event=True)).data["added"] == 1
    assert send(api, scalar(model, 1, 1.0)).code == "400/131"
    assert api("events.scalar_metrics_iter_histogram", task=model, model_events=True)["loss"]["train"]["y"] == [1.0]


def test_events_keep_their_task_from_looking_silent(api: Api) -> None:
    task = api.task()
    before = api("tasks.get_by_id", task=task)["task"]["last_update"]
    send(api, log(task, "alive", 1))
    assert api("tasks.get_by_id", task=task)["task"]["last_update"] > before


def test_a_task_shows_the_latest_figures_of_so_many_metrics_and_keeps_all(api: Api) -> None:
    task = api.task("many metrics")
    batch = [
        {"type": "training_stats_scalar", "task": task, "metric": f"m{n}", "variant": "v", "iter": 1, "value": n}
        for n in range(5_100)
    ]
    api.ask("events.add_batch", "\n".join(map(json.dumps, batch)).encode())
    api("events.add", type="training_stats_scalar", task=task, metric="m7", variant="v", iter=2, value=70)
    latest = api("tasks.get_by_id", task=task, only_fields=["last_metrics"])["task"]["last_metrics"]
    assert len(latest) == 5_000
    assert [v["value"] for vs in latest.values() for v in vs.values() if v["metric"] == "m7"] == [70]
    assert len(api("events.scalar_metrics_iter_histogram", task=task)) == 5_100
