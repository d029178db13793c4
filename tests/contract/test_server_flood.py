"""A task that floods its console: calls about queues do not wait for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import requests
from clearml_server import ClearmlServer
from http_api import Api
from waiting import wait_until

SENDERS = 24
"""More than all batches that the server reads or writes at a time."""
LINES = 8000


def test_queue_calls_overtake_a_flood_of_console_lines(start_clearml_server: Callable[..., ClearmlServer]) -> None:
    server = start_clearml_server()
    api = Api(server.url, server.conf)
    noisy, waiting = api.task("noisy"), api.task("waiting")
    queue = api("queues.create", name="overtaking")["id"]
    batch = "\n".join(
        json.dumps({"type": "log", "task": noisy, "msg": f"line {number} of a loop", "timestamp": number})
        for number in range(LINES)
    ).encode()
    sent, answered = [], []

    def send() -> None:
        sent.append(1)
        answer = requests.post(f"{api.url}/events.add_batch", data=batch, headers=api.headers, timeout=600)
        answered.append(answer.status_code)

    senders = [threading.Thread(target=send) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    wait_until("a batch to be stored", lambda: answered)
    api("tasks.enqueue", task=waiting, queue=queue)
    api("queues.remove_task", task=waiting, queue=queue)
    overtaken = SENDERS - len(answered)
    for sender in senders:
        sender.join()
    api.http.close()
    assert answered == [200] * SENDERS
    assert overtaken > SENDERS / 3
    server.stop()
