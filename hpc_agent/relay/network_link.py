"""Link over the cluster's network: the daemon listens, and both sides prove that they know the secret.

Each sends 32 random bytes in hexadecimal digits. The daemon begins with its own as a line; the node's line is ``<proof>
<bytes> <target>``; the daemon's answer ``<proof> OK``, ``<proof> NO <why>`` or ``<proof> LATER <why>``. Then the
connection is the target's. The secret itself is never sent.

The node proves the address that it called, too: a program that listens at the address of a daemon that has ended can
neither pass for it nor use a node's proof at another daemon.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable

from hpc_agent.logs import EventLog
from hpc_agent.redact import Secret
from hpc_agent.relay.relay_folder import NONCE_BYTES, RelayFolder, proof
from hpc_agent.relay.stream import BLOCK, ByteStream, LinkError, SocketStream, pump
from hpc_agent.relay.target import RelayTarget, parse_target

log = EventLog("relay")

TIMEOUT_S = 20.0
_LONGEST_ANSWER = 8000
"""Characters; a line of them is shorter than ``BLOCK`` bytes, the limit of a reader."""
MOST = 2000
"""Connections at once."""

Open = Callable[[RelayTarget], Awaitable[ByteStream]]


class RelayListener:
    """The daemon's end. ``host``: as its ``ListenRecord`` names it; ``open_target`` raises LinkError."""

    def __init__(self, secret: Secret, host: str, open_target: Open) -> None:
        self._secret = secret
        self._host = host
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
        nonce = secrets.token_hex(NONCE_BYTES)
        await node.write(f"{nonce}\n".encode())
        line = await asyncio.wait_for(node.reader.readline(), TIMEOUT_S)
        given, _, rest = line.decode("ascii").strip().partition(" ")
        node_nonce, _, name = rest.partition(" ")
        own = f"{self._host}:{node.writer.get_extra_info('sockname')[1]}"
        if not hmac.compare_digest(given, proof(self._secret, "node", nonce, node_nonce, own, name)):
            log.warning("relay.refused", peer=node.writer.get_extra_info("peername"), reason="wrong proof")
            return
        outside: ByteStream | None = None
        try:
            outside = await self._open_named(name)
            answer = "OK"
        except LinkError as error:
            word = "NO" if error.refused else "LATER"
            answer = " ".join(f"{word} {error}".split())[:_LONGEST_ANSWER].rstrip()
        try:
            await node.write(f"{proof(self._secret, 'daemon', nonce, node_nonce, answer)} {answer}\n".encode())
            if outside is not None:
                await pump(node, outside)
        finally:
            if outside is not None:
                await outside.close()

    async def _open_named(self, name: str) -> ByteStream:
        target = parse_target(name)
        if target is None:
            raise LinkError(f"{name} is not host:port", refused=True)
        return await self._open(target)


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
            # Its port may be another program's by now.
            why = f"no relay answers at {record.host}:{record.port}: {error or type(error).__name__}"
    raise LinkError(why)


async def _connect_through(host: str, port: int, secret: Secret, target: RelayTarget) -> ByteStream:
    reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port, limit=BLOCK), TIMEOUT_S)
    stream = SocketStream(reader, writer)
    try:
        nonce = (await asyncio.wait_for(reader.readline(), TIMEOUT_S)).decode("ascii").strip()
        own = secrets.token_hex(NONCE_BYTES)
        called = f"{host}:{port}"
        await stream.write(f"{proof(secret, 'node', nonce, own, called, str(target))} {own} {target}\n".encode())
        answer = (await asyncio.wait_for(reader.readline(), TIMEOUT_S + 10)).decode().strip()
        given, _, text = answer.partition(" ")
        if not hmac.compare_digest(given.encode(), proof(secret, "daemon", nonce, own, text).encode()):
            raise ConnectionError("what listens there does not know the secret of this cluster's jobs")
        word, _, why = text.partition(" ")
        if word != "OK":
            raise LinkError(why, refused=word == "NO")
    except BaseException:
        await stream.close()
        raise
    return stream
