"""Connection limits: how many and for how long, so that idle clients do not keep others out.

A connection whose request is not complete gives way when its address, or the whole server, has no room for another
one; and it is closed when it stays silent for too long.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Limits:
    """``head``: seconds from the connection to a complete request head, TLS included; ``silence``: between two pieces
    of a request's body; ``stalled``: for which a client may take nothing of its answer."""

    total: int
    per_address: int
    head: float = 20.0
    silence: float = 60.0
    stalled: float = 120.0


class Stage(Enum):
    HEAD = "its request has no complete head"
    BODY = "its request's body is still coming"
    ANSWER = "its request is complete"


class Connection:
    """An accepted connection. ``since``: when its stage began, or when it last sent something of its body."""

    def __init__(self, accepted: socket.socket, address: str, now: float) -> None:
        self.socket = accepted
        self.address = address
        self.stage = Stage.HEAD
        self.since = now
        self.transport: asyncio.Transport | None = None
        self._unsent = 0
        self._stalled_since = now

    def is_overdue(self, limits: Limits, now: float) -> bool:
        """To be asked now and then: whether nothing of the answer left can only be seen by looking twice."""
        if self.transport is not None:
            unsent = self.transport.get_write_buffer_size()
            if not unsent or unsent != self._unsent:
                self._unsent, self._stalled_since = unsent, now
            if now - self._stalled_since > limits.stalled:
                return True
            if not self.transport.is_reading() and not self.transport.is_closing():
                self.since = now  # it is the server that does not listen: the disk is slower than the network
        allowed = {Stage.HEAD: limits.head, Stage.BODY: limits.silence}.get(self.stage)
        return allowed is not None and now - self.since > allowed

    def end(self) -> None:
        """Close it without an answer; its protocol, if it has one, is notified."""
        if self.transport is not None:
            self.transport.abort()
            return
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Connections:
    """All open connections. Belongs to the event loop's thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: dict[Connection, None] = {}
        self._by_address: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()

    def admit(self, accepted: socket.socket, peer: tuple[object, ...], now: float) -> Connection | None:
        """The new connection; None if no other one can be closed for it, so that it must be closed."""
        address = address_group(str(peer[0])) if peer else ""
        full = self._by_address[address] >= self._limits.per_address
        if full and not self.make_room(address):
            return None
        if not full and len(self._open) >= self._limits.total and not self.make_room():
            return None
        connection = Connection(accepted, address, now)
        self._open[connection] = None
        self._by_address[address] += 1
        return connection

    def make_room(self, address: str = "") -> bool:
        """End the connection of this address (of the one that has most) that is furthest from a complete request."""
        unfinished = [c for c in self._open if c.stage is not Stage.ANSWER and address in ("", c.address)]
        if not unfinished:
            return False
        # Only among those that can give way: an address whose requests are all complete protects no other one's.
        crowded = max((c.address for c in unfinished), key=lambda name: self._by_address[name])
        unfinished = [c for c in unfinished if c.address == crowded]
        self._end(min(unfinished, key=lambda c: (c.stage is not Stage.HEAD, c.since)), "gave way")
        return True

    def close_overdue(self, now: float) -> None:
        for connection in [c for c in self._open if c.is_overdue(self._limits, now)]:
            self._end(connection, "silent")

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        if connection in self._open:
            del self._open[connection]
            self._by_address[connection.address] -= 1
            self._by_address += Counter()  # drops addresses that have none

    def ended_since_last_asked(self) -> Counter[str]:
        """How many were ended, by reason."""
        ended, self._ended = self._ended, Counter()
        return ended

    def _end(self, connection: Connection, reason: str) -> None:
        self._ended[reason] += 1
        self.forget(connection)
        connection.end()


def address_group(address: str) -> str:
    """The part of an address that one machine cannot choose at will: all of IPv4's, the network of IPv6's."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
