"""Unforeseen requests to every endpoint: each is answered in time and with a message, never a 5xx."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from exploring import TIMES
from hostile_requests import Generator

from hpc_agent.server.services import ENDPOINTS

ROUNDS = 20 * max(TIMES, 1)
"""Requests to each endpoint. The same ones each time."""
SECONDS = 1.0
"""Of the server's processor time, which a busy machine does not lengthen. Real figures are milliseconds."""


@pytest.fixture(scope="module")
def known(api: Any) -> dict[str, str]:
    """Things that exist, so that requests get further than "no such task"."""
    api("workers.register", worker="fuzzed")
    return {
        "task": api.task("fuzzed", hyperparams={"Args": {"lr": {"value": "1"}}}),
        "model": api("models.create", name="fuzzed", uri="u")["id"],
        "queue": api("queues.create", name="fuzzed")["id"],
        "project": api("projects.create", name="fuzzed")["id"],
        "worker": "fuzzed",
    }


def busy(server: psutil.Process) -> float:
    """Seconds of processor time that it has used."""
    times = server.cpu_times()
    return float(times.user + times.system)


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_every_request_is_answered_within_a_second_and_without_a_server_error(
    api: Any, clearml_server: Any, known: dict[str, str], name: str
) -> None:
    server = psutil.Process(clearml_server.pid)
    generator = Generator(sum(name.encode()), known)
    bad = []
    for _ in range(ROUNDS):
        body = generator.body(ENDPOINTS[name])
        before = busy(server)
        answer = api.ask(name, body)
        took = busy(server) - before
        if answer.status >= 500 or took > SECONDS or not answer.meta["result_msg"]:
            bad.append((answer.code, answer.meta["result_msg"], took, body[:2000]))
    assert bad == []


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_no_query_string_is_answered_with_a_server_error(api: Any, known: dict[str, str], name: str) -> None:
    for query in ("a=%00", "task=%ff%fe", "task&task&task", f"task={known['task']}&force=maybe", "&" * 2000, "=" * 99):
        assert api.parsed(api.raw(f"/{name}?{query}")).status < 500


def test_pages_show_what_the_requests_left(api: Any, known: dict[str, str]) -> None:
    generator = Generator(1, known)
    for name in ("tasks.create", "tasks.edit", "projects.create", "queues.create", "events.add_batch"):
        for _ in range(ROUNDS):
            api.ask(name, generator.body(ENDPOINTS[name]))
    tasks = api("tasks.get_all", only_fields=["id"], search_hidden=True)["tasks"]
    assert tasks
    for task in tasks:
        assert api.raw(f"/projects/*/experiments/{task['id']}").status_code == 200
    for page in range(10):
        assert api.raw(f"/?page={page}").status_code == 200


def _many(item: str, count: int) -> str:
    return "[" + ", ".join(item.replace("#", str(number)) for number in range(count)) + "]"


LARGE: dict[str, tuple[str, Callable[[], str]]] = {
    "empty lists": ("tasks.edit", lambda: '{"runtime": {"a": ' + _many("[]", 5_000_000) + "}}"),
    "brackets in a text": ("tasks.edit", lambda: '{"comment": "' + "[{" * 2_000_000 + '"}'),
    "half pairs": ("tasks.edit", lambda: '{"comment": "' + r"\ud800" * 500_000 + '"}'),
    "never closed": ("tasks.edit", lambda: '{"a": [' + "[1, " * 2_000_000),
    "an unfinished text of quotes": ("tasks.edit", lambda: '{"a": "' + r"\"," * 2_000_000),
    "blanks": ("tasks.edit", lambda: " " * 8_000_000),
    "empty lines": ("events.add_batch", lambda: "{}\n" * 3_000_000),
    "configuration to delete": (
        "tasks.delete_configuration",
        lambda: '{"configuration": ' + _many('"x#"', 150_000) + "}",
    ),
    "parameters to delete": (
        "tasks.delete_hyper_params",
        lambda: '{"hyperparams": ' + _many('{"section": "a", "name": "x#"}', 50_000) + "}",
    ),
    "names of configuration": ("tasks.get_configurations", lambda: '{"names": ' + _many('"x#"', 150_000) + "}"),
    "fields of one task": ("tasks.get_by_id", lambda: '{"only_fields": ' + _many('"runtime.x#"', 150_000) + "}"),
    "one task 10,000 times": ("tasks.archive_many", lambda: "{}"),
}
"""Endpoint, and the body, made when it is sent: together they are 60 MB."""


@pytest.fixture(scope="module")
def large_task(api: Any) -> str:
    """A task with as many parameters and as much configuration as one gets by some calls."""
    task = str(api.task("large"))
    for part in range(3):
        names = [f"{part} {number}" for number in range(20_000)]
        items = [{"section": "a", "name": name, "value": "1"} for name in names]
        api("tasks.edit_hyper_params", task=task, hyperparams=items)
        api("tasks.edit_configuration", task=task, configuration=[{"name": n, "value": "1"} for n in names])
    return task


@pytest.mark.parametrize("name", sorted(LARGE))
def test_bodies_of_megabytes_are_answered_soon(api: Any, clearml_server: Any, large_task: str, name: str) -> None:
    action, made = LARGE[name]
    body = made()
    named = f'"ids": {json.dumps([large_task] * 10_000)}' if action.endswith("_many") else f'"task": "{large_task}"'
    named += f', "tasks": ["{large_task}"], "force": true' + (", " if body != "{}" else "")
    before = busy(psutil.Process(clearml_server.pid))
    answer = api.ask(action, body.replace("{", "{" + named, 1).encode())
    assert answer.status < 500
    assert busy(psutil.Process(clearml_server.pid)) - before < 2 * SECONDS
