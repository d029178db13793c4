"""HTTP proxy on a node's loopback address, for the agent and the task's process: they find it in their environment.

It passes each connection on over the link that ``hpc.relay`` names. A connection that is encrypted stays so from the
task's process to the server (CONNECT). Other users of the node cannot use it: it wants a password, a new one for each
job.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial

from hpc_agent.config.settings import AllSettings
from hpc_agent.logs import EventLog
from hpc_agent.relay import file_link, network_link
from hpc_agent.relay.loop_thread import LoopThread, closed
from hpc_agent.relay.proxy_variables import proxy_variables
from hpc_agent.relay.relay_folder import RelayFolder
from hpc_agent.relay.stream import BLOCK, ByteStream, LinkError, SocketStream, pump
from hpc_agent.relay.target import RelayTarget, parse_target, target_of

log = EventLog("relay")

HEAD_S = 60.0
USER = "job"
_REQUEST = re.compile(r"([A-Z]+) (\S+) HTTP/1\.[01]")
_DROPPED = re.compile(rb"(?im)^(proxy-[a-z-]+|connection|keep-alive):[^\r\n]*\r\n")

Connect = Callable[[RelayTarget], Awaitable[ByteStream]]


class NodeProxy:
    """``connect`` opens a connection to a target, and raises LinkError."""

    def __init__(self, connect: Connect, password: str) -> None:
        self._connect = connect
        self._authorization = b"Basic " + base64.b64encode(f"{USER}:{password}".encode())

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = SocketStream(reader, writer)
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_S)
            await self._serve(client, head)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("relay.connection_failed", error=error)
        except asyncio.CancelledError:
            pass  # the end of the program; Python 3.11 would print a traceback of each connection
        finally:
            await client.close()

    async def _serve(self, client: SocketStream, head: bytes) -> None:
        line, _, fields = head.partition(b"\r\n")
        request = _REQUEST.fullmatch(line.decode("latin-1"))
        target = _target(request[1], request[2]) if request else None
        if request is None or target is None:
            await client.write(_answer(400, "Bad Request", "this is a proxy: it takes CONNECT, and http:// addresses"))
            return
        if not self._is_known(fields):
            await client.write(_answer(407, "Proxy Authentication Required", "this proxy is for another user's job"))
            return
        try:
            server = await self._connect(target)
        except LinkError as error:
            status = (403, "Forbidden") if error.refused else (502, "Bad Gateway")
            log.warning("relay.not_connected", target=target, error=error)
            await client.write(_answer(*status, str(error)))
            return
        if request[1] == "CONNECT":
            await client.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            await server.write(_forwarded(request[1], request[2], fields))
            server = OneAnswer(server)
        await pump(client, server)

    def _is_known(self, fields: bytes) -> bool:
        found = re.search(rb"(?im)^proxy-authorization:[ \t]*([^\r\n]*)\r?$", fields)
        return found is not None and hmac.compare_digest(found[1].strip(), self._authorization)


class OneAnswer:
    """``ByteStream`` of a server that answers one request, and says so: not all of them do, and then the client would
    send the next request to it."""

    def __init__(self, inner: ByteStream) -> None:
        self._inner = inner
        self._head = b""
        self._is_head_read = False

    async def read(self) -> bytes:
        while not self._is_head_read:
            data = await self._inner.read()
            self._head += data
            status, end, rest = self._head.partition(b"\r\n\r\n")
            if end and re.match(rb"HTTP/1\.[01] 1\d\d\b", status):
                self._head = rest  # 100 Continue: the answer follows
                return status + end
            if end or not data or len(self._head) > BLOCK:
                self._is_head_read = True
                if not end:
                    return self._head
                line, _, fields = status.partition(b"\r\n")
                return line + b"\r\nConnection: close\r\n" + _DROPPED.sub(b"", fields + b"\r\n") + b"\r\n" + rest
        return await self._inner.read()

    async def write(self, data: bytes) -> None:
        await self._inner.write(data)

    async def close(self) -> None:
        await self._inner.close()


def _target(method: str, address: str) -> RelayTarget | None:
    return parse_target(address) if method == "CONNECT" else target_of(address) if "://" in address else None


def _forwarded(method: str, url: str, fields: bytes) -> bytes:
    """The head for the server. It answers one request: the next on this connection may be for another server."""
    path = "/" + url.partition("://")[2].partition("/")[2]
    return f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode("latin-1") + _DROPPED.sub(b"", fields)


def _answer(code: int, word: str, message: str) -> bytes:
    body = f"hpc-agent's relay: {message}\n".encode()
    head = f"HTTP/1.1 {code} {word}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    extra = 'Proxy-Authenticate: Basic realm="hpc-agent"\r\n' if code == 407 else ""
    return f"{head}{extra}Connection: close\r\n\r\n".encode() + body


@contextmanager
def node_proxy(settings: AllSettings, cluster: str, environ: MutableMapping[str, str]) -> Iterator[None]:
    """Inside, ``environ`` leads this process and all it starts to the relay that ``hpc.relay`` names.

    Raises:
        OSError: the relay's folder cannot be made.
    """
    relay = settings.hpc.relay
    folder = RelayFolder(settings.hpc.root, cluster)
    link = network_link.connect if relay.through == "network" else file_link.connect
    password = secrets.token_urlsafe(24)
    proxy = NodeProxy(partial(link, folder), password)
    with LoopThread("relay") as loop:
        server = loop.wait(_started(proxy))
        port = server.sockets[0].getsockname()[1]
        environ.update(proxy_variables(f"http://{USER}:{password}@127.0.0.1:{port}", settings, environ))
        log.info("relay.used", through=relay.through, port=port)
        try:
            yield
        finally:
            loop.wait(closed(server))


async def _started(proxy: NodeProxy) -> asyncio.Server:
    return await asyncio.start_server(proxy.handle, "127.0.0.1", 0, limit=BLOCK)
