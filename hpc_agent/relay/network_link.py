"""Link over the cluster's network: the daemon listens, a node proves that it knows the secret, and names its target.

The daemon sends 32 random bytes as a line of hexadecimal digits; the node answers ``<proof> <target>``; the daemon
answers ``OK``, or ``NO <why>``. Then the connection is the target's. The secret itself is never sent.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable

from hpc_agent.logs import EventLog
from hpc_agent.redact import Secret
from hpc_agent.relay.relay_folder import NONCE_BYTES, RelayFolder, proof
from hpc_agent.relay.stream import ByteStream, LinkError, SocketStream, pump
from hpc_agent.relay.target import RelayTarget, parse_target

log = EventLog("relay")

TIMEOUT_S = 20.0
_LINE = 1024
MOST = 2000
"""Connections at once."""

Open = Callable[[RelayTarget], Awaitable[ByteStream]]


class RelayListener:
    """The daemon's end. ``open_target`` raises LinkError."""

    def __init__(self, secret: Secret, open_target: Open) -> None:
        self._secret = secret
        self._open = open_target
        self._connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        node = SocketStream(reader, writer)
        try:
            if self._connections >= MOST:
                await node.write(b"NO the relay has too many connections\n")
                return
            self._connections += 1
            try:
                await self._serve(node)
            finally:
                self._connections -= 1
        except (OSError, asyncio.TimeoutError, ValueError) as error:
            log.debug("relay.connection_failed", error=error)
        except asyncio.CancelledError:
            pass  # the end of the program; Python 3.11 would print a traceback of each connection
        finally:
            await node.close()

    async def _serve(self, node: SocketStream) -> None:
        nonce = secrets.token_hex(NONCE_BYTES).encode()
        await node.write(nonce + b"\n")
        line = await asyncio.wait_for(node.reader.readline(), TIMEOUT_S)
        given, _, name = line.decode("ascii").strip().partition(" ")
        if not hmac.compare_digest(given, proof(self._secret, nonce, name)):
            log.warning("relay.refused", peer=node.writer.get_extra_info("peername"), reason="wrong proof")
            await node.write(b"NO the relay does not know this node: its secret is another one\n")
            return
        target = parse_target(name)
        try:
            if target is None:
                raise LinkError(f"{name} is not host:port", refused=True)
            outside = await self._open(target)
        except LinkError as error:
            kind = b"NO" if error.refused else b"LATER"
            await node.write(kind + b" " + str(error).replace("\n", " ").encode() + b"\n")
            return
        await node.write(b"OK\n")
        await pump(node, outside)


async def connect(folder: RelayFolder, target: RelayTarget) -> ByteStream:
    """The node's end: a connection to the target through the first daemon that answers.

    Raises:
        LinkError: there is none.
    """
    why = "no daemon offers a relay; is it running?"
    for record in await asyncio.to_thread(folder.listening):
        try:
            return await _connect_through(record.host, record.port, await asyncio.to_thread(folder.secret), target)
        except (OSError, asyncio.TimeoutError, ValueError) as error:
            why = f"the relay at {record.host}:{record.port} gives no answer ({error or type(error).__name__})"
    raise LinkError(why)


async def _connect_through(host: str, port: int, secret: Secret, target: RelayTarget) -> ByteStream:
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port, limit=_LINE), TIMEOUT_S)
    stream = SocketStream(reader, writer)
    try:
        nonce = (await asyncio.wait_for(reader.readline(), TIMEOUT_S)).strip()
        await stream.write(f"{proof(secret, nonce, str(target))} {target}\n".encode())
        word, _, why = (await asyncio.wait_for(reader.readline(), TIMEOUT_S + 10)).decode().strip().partition(" ")
        if word != "OK":
            if not word:
                raise ConnectionError("it closed the connection")
            raise LinkError(why, refused=word == "NO")
    except BaseException:
        await stream.close()
        raise
    return stream
