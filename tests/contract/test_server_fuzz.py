"""Requests that nobody foresaw, to every endpoint: each is answered in time and with a sentence, never a 5xx."""

from __future__ import annotations

from typing import Any

import pytest
from hostile_requests import Generator

from hpc_agent.clock import SYSTEM
from hpc_agent.server.services import ENDPOINTS

ROUNDS = 120
SECONDS = 30
"""No request may take so long: one that is quadratic or exponential takes minutes. Real figures are milliseconds."""


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


@pytest.mark.parametrize("name", sorted(ENDPOINTS))
def test_no_request_is_answered_with_a_server_error(api: Any, known: dict[str, str], name: str) -> None:
    generator = Generator(sum(name.encode()), known)
    bad = []
    for _ in range(ROUNDS):
        body = generator.body(ENDPOINTS[name])
        began = SYSTEM.monotonic()
        answer = api.ask(name, body)
        if answer.status >= 500 or SYSTEM.monotonic() - began > SECONDS or not answer.meta["result_msg"]:
            bad.append((answer.code, answer.meta["result_msg"], body[:2000]))
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
