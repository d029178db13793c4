"""HTTP server: uvicorn with connections that are accepted here, counted, and closed when they stay silent.

uvicorn has no time limit for a request's head, and no limit of connections by address.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hpc_agent.logs import EventLog
from hpc_agent.server.connections import Connection, Connections, Limits, Stage

_SWEEP = 1.0
_REPORT = 60.0
_PAUSE = 0.2
_MOST_DESCRIPTORS = 65536
LONGEST_HEAD = 64 * 1024
"""Bytes of a request's head."""
_MOST_HEADERS = 200
_SPARE_DESCRIPTORS = 64
"""For the database, the log and what the interpreter opens."""

_FREE_CHUNKS = 200
_SMALLEST_CHUNK = 256
"""Bytes that the chunks of a body must have on average, those beyond the first ``_FREE_CHUNKS``."""

log = EventLog("server.connections")


def raise_descriptor_limit() -> int:
    """Let this process open as many files as the system allows it; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def limits_for(descriptors: int, per_address: int) -> Limits:
    """A connection may need a second descriptor, for the file that it uploads or fetches."""
    total = max((descriptors - _SPARE_DESCRIPTORS) // 2, 8)
    return Limits(total, min(per_address, total))


class HttpServer(uvicorn.Server):
    """Serves the application to the connections of one listening socket."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, limits: Limits, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._listener = listener
        self._limits = limits
        self._connections = Connections(limits)
        self._loops: list[asyncio.Task[None]] = []
        self._beginning: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self._listener.setblocking(False)
        self._loops = [asyncio.create_task(self._accept()), asyncio.create_task(self._sweep())]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._loops:
            task.cancel()
        await super().shutdown(sockets=[])

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # While many connections wait, accepting never suspends: let the accepted ones run.
            await asyncio.sleep(0)
            try:
                accepted, peer = await loop.sock_accept(self._listener)
            except OSError as error:
                # Out of descriptors or memory, or a connection that ended before it was accepted.
                self._connections.make_room()
                log.debug("connection.not_accepted", reason=error.strerror)
                await asyncio.sleep(_PAUSE)
                continue
            connection = self._connections.admit(accepted, peer, loop.time())
            if connection is None:
                accepted.close()
                continue
            task = asyncio.create_task(self._begin(connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: Connection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                partial(self._protocol, connection),
                connection.socket,
                ssl=self._tls,
                ssl_handshake_timeout=self._limits.head if self._tls else None,
            )
        except OSError:
            # Not TLS, or closed already.
            self._connections.forget(connection)
            connection.socket.close()

    def _protocol(self, connection: Connection) -> WatchedProtocol:
        return WatchedProtocol(
            self._connections,
            connection,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        reported = loop.time()
        while True:
            await asyncio.sleep(_SWEEP)
            self._connections.close_overdue(loop.time())
            if loop.time() - reported > _REPORT:
                reported = loop.time()
                if ended := self._connections.ended_since_last_asked():
                    log.warning("connections.closed", **ended)


class FrugalParser(h11.Connection):
    """HTTP parser that refuses a body in tiny chunks: each costs as much time as a large one, and a few clients that
    send one byte a chunk would keep the server busy."""

    def __init__(self, longest_head: int) -> None:
        super().__init__(h11.SERVER, longest_head)
        self._chunks = 0
        self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """
        Raises:
            h11.RemoteProtocolError: not HTTP, or a body in too small chunks.
        """
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data) and event.chunk_start:
            self._chunks += 1
            self._bytes += len(event.data)
            if self._chunks > _FREE_CHUNKS + self._bytes // _SMALLEST_CHUNK:
                self._process_error(self.their_role)
                raise h11.RemoteProtocolError("the chunks of the body are too small")
        return event


class WatchedProtocol(H11Protocol):
    """HTTP protocol that records in its connection which part of the request has come."""

    def __init__(self, connections: Connections, connection: Connection, **options: Any) -> None:
        super().__init__(**options)
        self.conn = FrugalParser(self.config.h11_max_incomplete_event_size or LONGEST_HEAD)
        self._headers = 0
        self._connections = connections
        self._connection = connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._connection.transport = transport
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.forget(self._connection)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer to what is not HTTP, with the headers of every answer; nothing if an answer has begun."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        text = msg.encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(text)).encode()),
        ]
        for part in (h11.Response(status_code=400, headers=headers, reason=b"Bad Request"), h11.Data(data=text)):
            self.transport.write(self.conn.send(part) or b"")
        self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE:
            # Counted before they are parsed: a head of many short ones takes a fifth of a second.
            self._headers += data.partition(b"\r\n\r\n")[0].count(b"\n")
            if self._headers > _MOST_HEADERS:
                self.send_400_response(f"A request may have {_MOST_HEADERS} headers.")
                return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            return
        self._connection.stage = Stage.BODY if self.conn.their_state is h11.SEND_BODY else Stage.ANSWER
        self._connection.since = self.loop.time()
