"""What requests cost: processor time of a real embedded server for each kind, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from faults.bench import start_server

from hpc_agent.api.client import Client
from hpc_agent.clock import SYSTEM
from hpc_agent.config.load import load
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.retry import ROUTINE
from hpc_agent.server.store import queue_rows
from hpc_agent.server.store.connection import DocumentStore
from hpc_agent.wire.event import log_event

STATES_OF_MANY = "tasks.get_all by a daemon"
OTHERS = "others"
"""Small writes, of the start and the end of a task."""
_CALLS_S = 2.0
"""How long each kind is asked for at least: processor times are counted in hundredths of a second."""
_WORKER = WorkerId("n1:slurm:1")


def server_costs(folder: Path, entries: int, states: int) -> Mapping[str, float]:
    """Processor seconds of the server for each request. ``entries``: of a queue; ``states``: tasks that a daemon asks
    for in one request."""
    process, _ = start_server(folder)
    try:
        client = Client(load(folder / "clearml.conf", {}).settings.api)
        queue = client.queues.resolve("bench", create=True)
        tasks = [client.tasks.create({"name": f"sweep {number}", "type": "training"}) for number in range(states)]
        # Straight into its database: a request for each would take longer than all that is measured.
        with DocumentStore(folder / "server.db").write() as db:
            for number in range(entries):
                queue_rows.append(db, queue, f"{number:032x}", "2026-01-01T00:00:00.000000+00:00")
        server = psutil.Process(process.pid)
        return {kind: _each(server, call) for kind, call in _calls(client, queue, tasks).items()}
    finally:
        process.kill()
        process.communicate()


def _calls(client: Client, queue: QueueId, tasks: Sequence[TaskId]) -> Mapping[str, Callable[[], object]]:
    task = tasks[0]

    def line() -> None:
        now = int(SYSTEM.now().timestamp() * 1000)
        client.events.add([log_event(task, _WORKER, "epoch 12 loss 0.123", now)], budget=ROUTINE)

    return {
        "queues.get_all": lambda: client.queues.get_many([queue]),
        "tasks.get_all": lambda: client.tasks.get_states([task]),
        STATES_OF_MANY: lambda: client.tasks.get_states(tasks),
        "tasks.ping": lambda: client.tasks.ping(task, budget=ROUTINE),
        "workers.status_report": lambda: client.workers.report(_WORKER, task=task, stats={"cpu_usage": [50.0]}),
        "workers.get_runtime_properties": lambda: client.workers.runtime_properties(_WORKER),
        "events.add_batch": line,
        OTHERS: lambda: client.tasks.set_status_message(task, f"waits {time.monotonic()}", budget=ROUTINE),
    }


def _each(server: psutil.Process, call: Callable[[], object]) -> float:
    call()
    before, begun, count = _seconds(server), time.monotonic(), 0
    while time.monotonic() - begun < _CALLS_S or count < 20:
        call()
        count += 1
    return (_seconds(server) - before) / count


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
