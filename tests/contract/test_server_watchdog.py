"""What the server does by itself after hours of silence, under a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
from server_core import ServerCore

from hpc_agent.server.watchdog import MESSAGE


def test_a_running_task_that_is_silent_for_two_hours_is_stopped(server: ServerCore) -> None:
    task = server("tasks.create", name="task", type="training")["id"]
    server("tasks.started", task=task)
    assert server.sweep(minutes=119) == []
    assert server.sweep(minutes=2) == [task]
    found = server("tasks.get_by_id", task=task)["task"]
    assert (found["status"], found["status_reason"], found["status_message"]) == ("stopped", MESSAGE, MESSAGE)
    assert server.sweep(days=9) == []


@pytest.mark.parametrize(
    ("action", "fields"),
    [
        ("tasks.ping", {}),
        ("events.add", {"type": "log", "msg": "alive"}),
        ("workers.status_report", {"worker": "w", "timestamp": 1}),
        ("tasks.edit", {"comment": "still here", "force": True}),
    ],
)
def test_every_heartbeat_restarts_the_two_hours(server: ServerCore, action: str, fields: dict[str, Any]) -> None:
    task = server("tasks.create", name="task", type="training")["id"]
    server("tasks.started", task=task)
    server.sweep(minutes=100)
    server(action, task=task, **fields)
    assert server.sweep(minutes=100) == []
    assert server.sweep(minutes=30) == [task]


def test_a_task_that_waits_for_days_stays_queued(server: ServerCore) -> None:
    task = server("tasks.create", name="task", type="training")["id"]
    server("tasks.enqueue", task=task, queue_name="queue")
    assert server.sweep(days=30) == []


def test_silent_workers_are_forgotten_after_the_time_they_gave(server: ServerCore) -> None:
    server("workers.register", worker="usual")
    server("workers.register", worker="patient", timeout=3600)
    server.sweep(seconds=599)
    assert [worker["id"] for worker in server("workers.get_all", last_seen=0)["workers"]] == ["patient", "usual"]
    server.sweep(seconds=2)
    assert [worker["id"] for worker in server("workers.get_all", last_seen=0)["workers"]] == ["patient"]


def test_a_stop_request_to_a_worker_gone_for_long_stops_the_task_at_once(server: ServerCore) -> None:
    task = server("tasks.create", name="task", type="training")["id"]
    server("tasks.started", task=task)
    server("workers.status_report", worker="w", task=task, timestamp=1)
    server.clock.advance(601)
    server("tasks.stop", task=task)
    assert server("tasks.get_by_id", task=task)["task"]["status"] == "stopped"
