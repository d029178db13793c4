"""Connector of the relay: the daemon's side, in a thread with an event loop of its own.

It opens connections to the ClearML servers, and to what the site allows in addition, and to nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.errors import ConfigError
from hpc_agent.logs import EventLog
from hpc_agent.relay.file_link import FileRelay
from hpc_agent.relay.loop_thread import LoopThread, closed
from hpc_agent.relay.network_link import RelayListener
from hpc_agent.relay.relay_folder import ListenRecord, RelayFolder
from hpc_agent.relay.stream import BLOCK, ByteStream, LinkError, SocketStream
from hpc_agent.relay.target import RelayTarget, allowed_targets, refusal

log = EventLog("relay")

CONNECT_S = 15.0
ANNOUNCE_S = 60.0
"""Nodes try the address first that was written last: that of a daemon which died comes after all others by then."""


class Connector:
    """Opens the connections that nodes ask for."""

    def __init__(self, settings: AllSettings) -> None:
        self._allowed = allowed_targets(settings)

    async def open(self, target: RelayTarget) -> ByteStream:
        """
        Raises:
            LinkError: it is not allowed, or cannot be reached.
        """
        if target not in self._allowed:
            log.warning("relay.refused", target=target, reason="not allowed")
            raise LinkError(refusal(target, self._allowed), refused=True)
        try:
            opening = asyncio.open_connection(target.host, target.port, limit=BLOCK)
            reader, writer = await asyncio.wait_for(opening, CONNECT_S)
        except (OSError, asyncio.TimeoutError) as error:
            raise LinkError(f"the login node does not reach {target}: {error or type(error).__name__}") from error
        return SocketStream(reader, writer)


@contextmanager
def relay(settings: AllSettings, cluster: str, daemon: str, clock: Clock, *, required: bool = True) -> Iterator[None]:
    """Relay the connections of nodes inside, as ``hpc.relay`` says.

    Args:
        cluster: empty without a batch system, where jobs are on this machine.
        daemon: this daemon's worker id, or another name that no other process has.
        required: whether it is an error that the address cannot be listened on: a daemon may have it.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    if settings.hpc.relay.through == "none" or not cluster:
        yield
        return
    folder = RelayFolder(settings.hpc.root, cluster)
    connector = Connector(settings)
    with LoopThread("relay") as loop:
        if settings.hpc.relay.through == "files":
            loop.spawn(FileRelay(folder, connector.open).run())
            log.info("relay.started", through="files", folder=folder.connections)
            yield
            return
        try:
            server = loop.wait(_listen(settings, folder, connector))
        except ConfigError as error:
            if required:
                raise
            log.info("relay.left_to_daemon", error=error)
            yield
            return
        port = server.sockets[0].getsockname()[1]
        folder.announce(daemon, ListenRecord(settings.hpc.relay.host, port, clock.now()))
        announcing = loop.spawn(keep_announced(folder, daemon, settings.hpc.relay.host, port, clock))
        log.info("relay.started", through="network", host=settings.hpc.relay.host, port=port)
        try:
            yield
        finally:
            announcing.cancel()
            loop.wait(closed(server))
            with contextlib.suppress(OSError):
                folder.withdraw(daemon)


async def keep_announced(
    folder: RelayFolder, daemon: str, host: str, port: int, clock: Clock, every: float = ANNOUNCE_S
) -> None:
    """Write the address of a listening daemon again and again; ``every``: seconds."""
    while True:
        await asyncio.sleep(every)
        try:
            await asyncio.to_thread(folder.announce, daemon, ListenRecord(host, port, clock.now()))
        except OSError as error:
            log.warning("relay.not_announced", error=error)


async def _listen(settings: AllSettings, folder: RelayFolder, connector: Connector) -> asyncio.Server:
    address = settings.hpc.relay
    listener = RelayListener(folder.secret(), address.host, connector.open)
    try:
        return await asyncio.start_server(listener.handle, address.host, address.port, limit=BLOCK)
    except OSError as error:
        where = f"{address.host}:{address.port}" if address.port else address.host
        raise ConfigError(
            f"the relay cannot listen on {where} ({error.strerror or error}): hpc.relay.host is an address of this "
            "machine on the cluster's inner network, and hpc.relay.port one that is free there (0: any)"
        ) from error
