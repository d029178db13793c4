"""Benchmark of ``scripts/bench/server``: what the embedded server takes in, and how long calls wait meanwhile.

What a row costs, and what the load needs, is processor time, which a busy machine lengthens little. For latencies the
machine must be otherwise idle; the clients run in this process, on the same processors as the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.server_clients import Address, Latencies, Load, ask, executor, flood, lines, queue_client, scalars, together
from faults.arguments import positive

from hpc_agent.config.load import load as load_conf
from hpc_agent.server.store.connection import DocumentStore

BATCH = 1000
RATIO = 4.0
"""Times the processor time of a plain write, at most."""
BEHIND_S = 2.0
QUEUE_S = 1.0
"""Of the 99th percentile, during a flood."""
PROCESSORS = 2.0
"""That the load may need, clients included."""


@dataclass(frozen=True)
class Running:
    """A server of our own."""

    address: Address
    process: psutil.Process

    def call(self, action: str, **fields: object) -> dict[str, Any]:
        seen = Latencies()
        answer = asyncio.run(ask(self.address, action, json.dumps(fields).encode(), "127.0.0.1", seen))
        if seen.errors:
            sys.exit(f"error: {action} was refused: {seen.errors[0]}")
        data: dict[str, Any] = json.loads(answer)["data"]
        return data

    def processor_time(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def server(folder: Path) -> Iterator[Running]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "TRAINS_"))}
    argv = [sys.executable, "-m", "hpc_agent", "server", "--port", "0", "--data-dir", str(folder)]
    with subprocess.Popen(argv, env={**clean, "HOME": str(folder)}, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            settings = load_conf(folder / "clearml.conf", {}).settings.api
            keys = (settings.access_key, settings.secret_key.reveal())
            token = requests.get(f"{url}/auth.login", auth=keys, timeout=60).json()["data"]["token"]
            address = Address(int(url.rpartition(":")[2]), token)
            yield Running(address, psutil.Process(process.pid))
        finally:
            process.terminate()


def plain_writes(folder: Path, batches: int) -> dict[str, float]:
    """Microseconds of processor time for a row that SQLite writes to the same tables, one batch a transaction."""
    path = folder / "plain.db"
    path.unlink(missing_ok=True)
    DocumentStore(path).close()
    database = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=WAL", "secure_delete=ON", "synchronous=NORMAL"):
        database.execute(f"PRAGMA {pragma}")
    task = "0" * 32
    database.execute(
        "INSERT INTO scalar_series (id, task, metric, variant, worker) VALUES (1, ?, 'loss', 'train', '')", (task,)
    )
    chunks = [json.loads(line) for line in lines(task, 0, BATCH * batches).splitlines()]
    console = [(e["task"], e["timestamp"], e["level"], e["worker"], e["msg"]) for e in chunks]
    points = [(1, number, number, 1 / (number + 1)) for number in range(BATCH * batches)]
    statements: dict[str, tuple[str, Sequence[Sequence[object]]]] = {
        "log lines": ("INSERT INTO console (task, timestamp, level, worker, msg) VALUES (?, ?, ?, ?, ?)", console),
        "scalars": (
            "INSERT OR REPLACE INTO scalar_points (series, iter, timestamp, value) VALUES (?, ?, ?, ?)",
            points,
        ),
    }
    found = {}
    for name, (statement, rows) in statements.items():
        began = time.process_time()
        for first in range(0, len(rows), BATCH):
            database.execute("BEGIN IMMEDIATE")
            database.executemany(statement, rows[first : first + BATCH])
            database.execute("COMMIT")
        found[name] = 1e6 * (time.process_time() - began) / len(rows)
    database.close()
    return found


@dataclass(frozen=True)
class Taken:
    """What requests of one client took: seconds, and of them the server's processor time."""

    seconds: float
    processor: float


def one_client(running: Running, action: str, bodies: list[bytes]) -> Taken:
    """Send one request after the other."""
    seen = Latencies()

    async def send() -> None:
        for body in bodies:
            await ask(running.address, action, body, "127.0.0.1", seen)

    began, used = time.monotonic(), running.processor_time()
    asyncio.run(send())
    if seen.errors:
        sys.exit(f"error: {action} was refused: {seen.errors[0]}")
    return Taken(time.monotonic() - began, running.processor_time() - used)


def rows_of_one_client(running: Running, folder: Path, task: str, batches: int) -> dict[str, float]:
    """Rows a second of one client, and what a row costs; the same for the smallest call."""
    before = plain_writes(folder, batches)
    bodies = {
        "log lines": [lines(task, BATCH * number, BATCH) for number in range(batches)],
        "scalars": [scalars(task, BATCH * number, BATCH) for number in range(batches)],
    }
    found = {}
    for name, of_kind in bodies.items():
        taken = one_client(running, "events.add_batch", of_kind)
        found[f"{name} a second, one client"] = BATCH * batches / taken.seconds
        found[f"{name}, us of the server"] = 1e6 * taken.processor / (BATCH * batches)
    # On a busy machine the same work takes more processor time at one moment than at another.
    after = plain_writes(folder, batches)
    for name in bodies:
        found[f"{name}, us of a plain write"] = (before[name] + after[name]) / 2
    calls = 5 * batches
    taken = one_client(running, "users.get_current_user", [b"{}"] * calls)
    found["requests a second, one client"] = calls / taken.seconds
    found["smallest request, us of the server"] = 1e6 * taken.processor / calls
    return found


def under_load(running: Running, tasks: list[str], queue: str, seconds: int, rate: int) -> Load:
    """All tasks report at once, and a queue is used meanwhile."""
    load = Load()
    address = running.address
    executors = [executor(task, number, seconds, rate) for number, task in enumerate(tasks[1:])]
    end = time.monotonic() + seconds + 1

    async def run() -> None:
        working = [each.run(address, rate, load) for each in executors]
        claims = queue_client(address, tasks[0], queue, lambda: time.monotonic() > end, load.queue_calls)
        await together(*working, claims)

    of_server, own = running.processor_time(), time.process_time()
    asyncio.run(run())
    load.server_processor = running.processor_time() - of_server
    load.clients_processor = time.process_time() - own
    return load


def during_a_flood(address: Address, tasks: list[str], queue: str, seconds: int) -> tuple[Latencies, Latencies]:
    """Latencies of queue calls, and of the batches of one task that sends as much as is taken."""
    calls, batches = Latencies(), Latencies()
    batch = lines(tasks[1], 0, 20_000)
    end = time.monotonic() + seconds

    async def run() -> None:
        await together(
            flood(address, batch, lambda: time.monotonic() > end, batches),
            queue_client(address, tasks[0], queue, lambda: time.monotonic() > end, calls),
        )

    asyncio.run(run())
    return calls, batches


def measured(arguments: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "server") as running:
        queue = str(running.call("queues.create", name="measured")["id"])
        tasks = [
            str(running.call("tasks.create", name=f"task {number}", type="training")["id"])
            for number in range(arguments.tasks + 1)
        ]
        for task in tasks[1:]:
            running.call("tasks.started", task=task)
        found = rows_of_one_client(running, Path(folder), tasks[1], arguments.batches)
        load = under_load(running, tasks, queue, arguments.seconds, arguments.rate)
        found["errors under load"] = len(load.batches.errors + load.statuses.errors + load.queue_calls.errors)
        found["log lines a second under load"] = load.lines / arguments.seconds
        for name, seen in (("batches", load.batches), ("statuses", load.statuses), ("queue calls", load.queue_calls)):
            for share in (0.5, 0.99, 1.0):
                found[f"{name} under load, s at {share:.0%}"] = seen.at(share)
        found["processors for the load, of the server"] = load.server_processor / arguments.seconds
        found["processors for the load, of the clients"] = load.clients_processor / arguments.seconds
        # A line waits for a second in its batch.
        found["console behind, s at 100%"] = max(load.behind)
        began, used = time.monotonic(), running.processor_time()
        calls, batches = during_a_flood(running.address, tasks, queue, arguments.seconds)
        found["processors that the server had, flood"] = (running.processor_time() - used) / (time.monotonic() - began)
        found["errors during a flood"] = len(calls.errors + batches.errors)
        found["log lines a second of the flood"] = 20_000 * len(batches.seconds) / arguments.seconds
        for share in (0.5, 0.99, 1.0):
            found[f"queue calls during a flood, s at {share:.0%}"] = calls.at(share)
    return found


def goals_of(found: dict[str, float]) -> list[dict[str, Any]]:
    # Ten lines to a scalar, as under the load.
    of_server, plain = (
        10 * found[f"log lines, us of {who}"] + found[f"scalars, us of {who}"]
        for who in ("the server", "a plain write")
    )
    values = {"a row, times of a plain write": (of_server / plain, RATIO)}
    values["errors"] = (found["errors under load"] + found["errors during a flood"], 0.0)
    values["processors for the load"] = (
        sum(found[f"processors for the load, of the {who}"] for who in ("server", "clients")),
        PROCESSORS,
    )
    values["console behind, s"] = (found["console behind, s at 100%"], BEHIND_S)
    values["queue calls during a flood, s at 99%"] = (found["queue calls during a flood, s at 99%"], QUEUE_S)
    return [
        {"name": name, "value": round(value, 3), "bound": bound, "met": value <= bound}
        for name, (value, bound) in values.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=positive, default=200, help="that report at once")
    parser.add_argument("--rate", type=positive, default=100, help="lines a second of each")
    parser.add_argument("--seconds", type=positive, default=20, help="of load, and of the flood")
    parser.add_argument("--batches", type=positive, default=50, help=f"of {BATCH} rows, of a single client")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    arguments = parser.parse_args()
    found = measured(arguments)
    for name, value in found.items():
        print(f"{name:<48} {value:12.3f}" if value < 100 else f"{name:<48} {value:12.0f}")
    goals = goals_of(found)
    for goal in goals:
        print(f"{'met' if goal['met'] else 'NOT MET':<8} {goal['name']}: {goal['value']} of {goal['bound']}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"goals": goals, "measured": found}, indent=2) + "\n")
    return 0 if all(goal["met"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
