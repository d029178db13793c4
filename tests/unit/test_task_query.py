"""The address of a table of tasks, and the request that it makes."""

from __future__ import annotations

import pytest

from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.page.task_columns import cell, column_of, offered_columns
from hpc_agent.server.page.task_query import TaskQuery


def test_an_empty_address_is_the_newest_active_tasks() -> None:
    request = TaskQuery.parse({}).request([])
    assert request["order_by"] == ["-last_update"]
    assert request["system_tags"] == ["-archived"]
    assert (request["page"], "project" in request, "_any_" in request) == (0, False, False)


def test_filters_of_the_address_reach_the_server() -> None:
    query = TaskQuery.parse({"status": ["failed", "queued"], "tag": ["a", "b"], "text": ["a.b"], "page": ["3"]})
    request = query.request(["p1", "p2"])
    assert request["status"] == ["failed", "queued"]
    assert request["tags"] == ["__$and", "a", "b"]
    assert request["_any_"]["pattern"] == r"a\.b"
    assert (request["project"], request["page"]) == (["p1", "p2"], 3)


def test_a_change_of_the_table_begins_at_its_first_page_and_keeps_the_rest() -> None:
    query = TaskQuery.parse({"status": ["failed"], "text": ["x y"], "page": ["2"]})
    assert query.query_string(order="name") == "?text=x+y&status=failed&order=name"
    assert query.query_string(page=3) == "?text=x+y&status=failed&page=3"


@pytest.mark.parametrize("page", ["x", "-1", "1.5", "9" * 12, "²"])
def test_a_page_that_is_not_a_number_is_refused(page: str) -> None:
    with pytest.raises(ApiFault, match="page must be a number"):
        TaskQuery.parse({"page": [page]})


def test_an_unknown_order_view_or_column_is_left_out() -> None:
    query = TaskQuery.parse(
        {"order": ["x; DROP TABLE"], "view": ["y"], "columns": ["status", "z", "p:", "m:a", "p:a/b"]}
    )
    assert query.request([])["order_by"] == ["-last_update"]
    assert (query.view, query.columns) == ("active", ("status", "p:a/b"))


def test_columns_of_parameters_and_metrics_find_their_values() -> None:
    task = {
        "hyperparams": {"Args": {"lr": {"value": "0.1"}, "a.b": {"value": "2"}}},
        "last_metrics": {"hash": {"hash": {"metric": "loss/total", "variant": "val", "value": 0.5}}},
    }
    parameters, metrics = offered_columns([task])
    assert parameters == ["p:Args/a.b", "p:Args/lr"]
    assert metrics == ["m:loss/total/val"]
    rate, dotted, loss = (column_of(key) for key in ("p:Args/lr", "p:Args/a.b", "m:loss/total/val"))
    assert rate is not None
    assert dotted is not None
    assert loss is not None
    assert (cell(rate, task), rate.order) == ("0.1", "hyperparams.Args.lr.value")
    assert (cell(dotted, task), dotted.order) == ("2", "")
    assert loss.title == "loss/total / val"
    _, metric, variant, value = loss.field.split(".")
    found = {"last_metrics": {metric: {variant: {"value": 0.5}}}}
    assert (cell(loss, found), value) == (0.5, "value")


def test_a_run_time_is_not_negative_and_missing_where_a_task_never_started() -> None:
    column = column_of("run_time")
    assert column is not None
    started = {"started": "2030-01-01T00:00:10+00:00", "last_update": "2030-01-01T00:01:00+00:00"}
    assert cell(column, started) == 50
    assert cell(column, {**started, "completed": "2030-01-01T00:00:00+00:00"}) == 0
    assert cell(column, {"last_update": "2030-01-01T00:01:00+00:00"}) is None
