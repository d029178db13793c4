"""Byte streams of the relay: what both kinds of link have in common, and the pump between two of them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

BLOCK = 64 * 1024


class LinkError(Exception):
    """There is no connection; the message says why, for the one who wanted it."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        """``refused``: trying again does not help."""
        super().__init__(message)
        self.refused = refused


class ByteStream(Protocol):
    """One connection."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            OSError: it broke.
        """

    async def write(self, data: bytes) -> None:
        """
        Raises:
            OSError: it broke.
        """

    async def close(self) -> None:
        """Never raises."""


class SocketStream:
    """``ByteStream`` of a TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self) -> bytes:
        return await self.reader.read(BLOCK)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def close(self) -> None:
        with contextlib.suppress(OSError):
            self.writer.close()
            await self.writer.wait_closed()


async def pump(one: ByteStream, other: ByteStream) -> None:
    """Copy in both directions until one of the two ends, then close both."""
    copies = [asyncio.create_task(_copy(one, other)), asyncio.create_task(_copy(other, one))]
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        await asyncio.gather(one.close(), other.close(), return_exceptions=True)


async def _copy(source: ByteStream, sink: ByteStream) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read():
            await sink.write(data)
