"""Events of ended tasks are deleted after a time; those of all other tasks stay."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from server_core import ServerCore

from hpc_agent.server.store.retention import forget_old_events

KEPT = timedelta(days=30)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerCore]:
    core = ServerCore(tmp_path)
    yield core
    core.close()


def reporting(server: ServerCore, name: str) -> str:
    """A running task that has reported a line, a scalar and a plot."""
    task = str(server("tasks.create", name=name, type="training")["id"])
    server("tasks.started", task=task)
    figures = {"task": task, "metric": "m", "variant": "v", "iter": 1}
    events = (
        {"type": "log", "task": task, "msg": f"unmistakable {name}"},
        {"type": "training_stats_scalar", "value": 0.5, **figures},
        {"type": "plot", "plot_str": "{}", **figures},
    )
    body = b"\n".join(map(msgspec.json.encode, events))
    assert server.ask("events.add_batch", body, server.administrator.token()).data["added"] == 3
    return task


def events_of(server: ServerCore, task: str) -> int:
    return int(server("events.get_task_events", task=task)["total"])


def later(server: ServerCore, days: float) -> int:
    server.clock.advance(timedelta(days=days).total_seconds())
    return forget_old_events(server.store, server.clock.now(), KEPT)


def test_ended_tasks_keep_their_events_for_so_long(server: ServerCore, tmp_path: Path) -> None:
    task = reporting(server, "ended")
    server("tasks.completed", task=task)
    assert later(server, 29) == 0
    assert events_of(server, task) == 3
    # Three events and the row of their series.
    assert later(server, 2) == 4
    assert events_of(server, task) == 0
    assert server("tasks.get_by_id", task=task)["task"]["status"] == "completed"
    assert server.store.fold()
    assert b"unmistakable" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_published_and_running_tasks_keep_their_events(server: ServerCore) -> None:
    published, running = reporting(server, "published"), reporting(server, "running")
    server("tasks.completed", task=published)
    server("tasks.publish", task=published)
    assert later(server, 365) == 0
    assert (events_of(server, published), events_of(server, running)) == (3, 3)


def test_what_changes_a_task_keeps_its_events_for_longer(server: ServerCore) -> None:
    task = reporting(server, "edited")
    server("tasks.completed", task=task)
    server.clock.advance(timedelta(days=20).total_seconds())
    server("tasks.edit", task=task, comment="worth a look", force=True)
    assert later(server, 20) == 0
    assert events_of(server, task) == 3
