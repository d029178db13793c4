"""Filters, patterns and orders that are large or hostile: an answer or a sentence, in time, never a 500."""

from __future__ import annotations

from typing import Any

import pytest
from http_api import Api

MANY = 3000


@pytest.fixture(scope="module")
def tagged(api: Api) -> str:
    return api.task("needle", tags=["red", "green"])


@pytest.mark.parametrize("service", ["tasks", "models", "projects", "queues", "users"])
@pytest.mark.parametrize("field", ["id", "tags", "system_tags"])
def test_a_filter_may_have_thousands_of_values(api: Any, service: str, field: str) -> None:
    values = [f"value {number}" for number in range(MANY)]
    assert api(f"{service}.get_all", **{field: values})[service] == []


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (["blue", "red"], True),
        (["__$and", "green", "red", "red"], True),
        (["__$and", "blue", "red"], False),
        (["-blue"], True),
        (["-red"], False),
        (["__$not", "red"], False),
        (["__$and", "red", "-blue"], False),
        (["__$and", "red", "__$not", "blue"], True),
        (["__$and", "red", "__$nop", "-blue"], True),
        (["__$and", "red", "__$not", "green"], False),
        (["red", "-blue"], True),
        (["red", "-green"], False),
        (["blue", "__$nop", "-red"], False),
    ],
)
def test_tags_among_thousands_mean_what_they_mean_alone(api: Any, tagged: str, tags: list[str], found: bool) -> None:
    operator = "" if "__$and" in tags else "-" if tags[0] in ("-blue", "-red", "__$not") else ""
    noise = [] if "__$and" in tags else [f"{operator}tag {number}" for number in range(MANY)]
    listed = api("tasks.get_all", id=[tagged], tags=[*tags, *noise])["tasks"]
    assert [task["id"] for task in listed] == ([tagged] if found else [])


@pytest.mark.parametrize(
    "request_",
    [
        {"id": ["x"] * 60_000},
        {"tags": ["x"] * 60_000},
        {"_any_": {"fields": ["name"] * MANY, "pattern": "x"}},
        {"_all_": {"fields": ["name"] * MANY, "pattern": "x"}},
        {"order_by": ["name"] * MANY},
        {"order_by": ["script.\0"]},
        {"order_by": ["script." + "a." * 500 + "a"]},
        {"only_fields": ["name"] * MANY},
        {"created": [">=2024-01-01T00:00:00"] * MANY},
        {f"hyperparams.{number}.x": "y" for number in range(MANY)},
        {"hyperparams.\x01": "y"},
    ],
    ids=lambda request: next(iter(request)),
)
def test_what_is_too_much_is_refused_with_a_sentence(api: Any, request_: dict[str, Any]) -> None:
    answer = api.ask("tasks.get_all", request_)
    assert answer.code == "400/12"
    assert any(word in answer.meta["result_msg"] for word in ("may have", "unknown field"))


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        *(("(a+)+$", False), ("(a|a)*$", True), ("(.*a){14}$", False), ("(a*)*b", False), ("(a?){40}a{40}$", False)),
        ("(a+)+!$", True),
    ],
)
def test_a_pattern_that_would_backtrack_for_hours_is_answered(api: Any, pattern: str, matches: bool) -> None:
    # Python's own engine takes longer for this than the age of the universe: the client would time out.
    name = "a" * 200 + "!"
    task = api.task(name)
    found = [{"id": task}] if matches else []
    assert api("tasks.get_all", id=[task], name=pattern, only_fields=["id"])["tasks"] == found
    fields = {"fields": ["name", "comment"], "pattern": pattern}
    assert api("tasks.get_all", id=[task], _any_=fields, only_fields=["id"])["tasks"] == found
    api("workers.register", worker=name)
    seen = [worker["id"] for worker in api("workers.get_all", worker_pattern=pattern)["workers"]]
    assert (name in seen) == matches
    api("workers.unregister", worker=name)


TOO_LONG = "x" * 5000


@pytest.mark.parametrize(
    "pattern", ["(?=x)", "(x)\\1", "x{2000}", "((x{100}){100}){100}", "[", TOO_LONG], ids=lambda text: text[:20]
)
@pytest.mark.parametrize("asked", ["name", "_any_", "worker_pattern"])
def test_a_pattern_that_cannot_be_searched_with_is_refused_with_a_sentence(api: Any, pattern: str, asked: str) -> None:
    action = "workers.get_all" if asked == "worker_pattern" else "tasks.get_all"
    wanted = {"fields": ["name"], "pattern": pattern} if asked == "_any_" else pattern
    answer = api.ask(action, {asked: wanted})
    assert answer.code == "400/12"
    assert ("may have 4000 characters" if pattern is TOO_LONG else "RE2") in answer.meta["result_msg"]


@pytest.mark.parametrize(
    "pattern", ["^needle$", "NEEDLE", "n..dle", "(needle|pin)", "^needle", "\\bneedle\\b", "(?i)N"]
)
def test_ordinary_patterns_find_what_they_always_found(api: Any, tagged: str, pattern: str) -> None:
    assert tagged in [task["id"] for task in api("tasks.get_all", name=pattern, only_fields=["id"])["tasks"]]
