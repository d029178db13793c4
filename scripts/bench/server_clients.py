"""Clients of the benchmark of the embedded server: the least that speaks HTTP, so that the server is measured."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

LINE = "epoch 12 step {number} loss 0.12345 accuracy 0.98765 lr 0.00100 and what else a training prints"
START_MS = 1_800_000_000_000


@dataclass(frozen=True)
class Address:
    """Where the server listens, and the token that it takes."""

    port: int
    token: str


@dataclass
class Latencies:
    """Seconds that each call took, and what was answered other than 200."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def at(self, share: float) -> float:
        """The time within which this share of the calls was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def lines(task: str, first: int, count: int) -> bytes:
    """A batch of console lines."""
    return _batch(
        {"type": "log", "task": task, "level": "INFO", "worker": "node1:gpu0", "timestamp": START_MS + number}
        | {"msg": LINE.format(number=number)}
        for number in range(first, first + count)
    )


def scalars(task: str, first: int, count: int, variant: str = "train") -> bytes:
    """A batch of points of one curve."""
    return _batch(
        {"type": "training_stats_scalar", "task": task, "metric": "loss", "variant": variant, "worker": "node1:gpu0"}
        | {"iter": number, "value": 1 / (number + 1), "timestamp": START_MS + number}
        for number in range(first, first + count)
    )


def _batch(events: Iterable[dict[str, object]]) -> bytes:
    return "\n".join(json.dumps(event) for event in events).encode()


async def ask(address: Address, action: str, body: bytes, source: str, seen: Latencies) -> bytes:
    """One call on a connection of its own, as the SDK's are; ``source`` is the loopback address it comes from."""
    began = time.monotonic()
    answer = b""
    try:
        answer = await _exchange(address, action, body, source)
    except OSError as error:
        seen.errors.append(repr(error))
    seen.seconds.append(time.monotonic() - began)
    if not answer.startswith(b"HTTP/1.1 200"):
        seen.errors.append(answer[:300].decode("utf-8", "replace"))
    return answer.partition(b"\r\n\r\n")[2]


async def _exchange(address: Address, action: str, body: bytes, source: str) -> bytes:
    """A socket without asyncio's streams, which take four times as much of the processor that the server needs too."""
    loop = asyncio.get_running_loop()
    head = f"POST /{action} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {address.token}\r\n"
    pieces = []
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.bind((source, 0))
        await loop.sock_connect(connection, ("127.0.0.1", address.port))
        await loop.sock_sendall(connection, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        while piece := await loop.sock_recv(connection, 65536):
            pieces.append(piece)
    return b"".join(pieces)


@dataclass
class Load:
    """What the executors of a load saw."""

    batches: Latencies = field(default_factory=Latencies)
    """From the moment a batch was complete."""
    behind: list[float] = field(default_factory=list)
    """Seconds from a batch's oldest line to its acknowledgement."""
    statuses: Latencies = field(default_factory=Latencies)
    queue_calls: Latencies = field(default_factory=Latencies)
    lines: int = 0
    scalars: int = 0
    server_processor: float = 0.0
    """Seconds of processor time that the load took of the server, and of the clients."""
    clients_processor: float = 0.0


@dataclass(frozen=True)
class Executor:
    """A task that sends a batch of lines and 10 scalars each second, and a sign of life every five.

    ``bodies``: of its batches, one a second, made before the load begins.
    """

    task: str
    number: int
    bodies: list[bytes]

    async def run(self, address: Address, rate: int, load: Load) -> None:
        source = f"127.0.1.{1 + self.number // 10}"
        start = time.monotonic() + self.number / 200
        for second, body in enumerate(self.bodies):
            oldest = start + second
            # Its lines come during a second, at whose end they are sent.
            await asyncio.sleep(max(0.0, oldest + 1 - time.monotonic()))
            await ask(address, "events.add_batch", body, source, load.batches)
            load.behind.append(time.monotonic() - oldest)
            load.lines += rate
            load.scalars += 10
            if second % 5 == self.number % 5:
                await ask(address, "tasks.ping", json.dumps({"task": self.task}).encode(), source, load.statuses)


def executor(task: str, number: int, seconds: int, rate: int) -> Executor:
    bodies = [lines(task, s * rate, rate) + b"\n" + scalars(task, s * 10, 10) for s in range(seconds)]
    return Executor(task, number, bodies)


async def queue_client(address: Address, task: str, queue: str, until: Callable[[], bool], seen: Latencies) -> None:
    """Enqueues a task and takes it off again, once at least."""
    named = json.dumps({"task": task, "queue": queue}).encode()
    while not (seen.seconds and until()):
        await ask(address, "tasks.enqueue", named, "127.0.0.1", seen)
        await ask(address, "tasks.dequeue", named, "127.0.0.1", seen)
        await asyncio.sleep(0.05)


async def flood(address: Address, batch: bytes, until: Callable[[], bool], seen: Latencies) -> None:
    """Sends one batch again and again, on several connections."""

    async def send() -> None:
        while not until():
            await ask(address, "events.add_batch", batch, "127.0.2.1", seen)

    await together(*(send() for _ in range(8)))


async def together(*parts: Awaitable[None]) -> None:
    await asyncio.gather(*parts)
