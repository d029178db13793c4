"""HTTP adapter that bounds the time of a whole answer, so that a server that sends a byte a minute holds no caller.

The read timeout of requests holds between two pieces of an answer, so that a hostile server, or a proxy that keeps
connections alive with a space now and then, could hold a caller forever.
"""

from __future__ import annotations

import http.client
import io
import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from hpc_agent.clock import SYSTEM

READ_TIMEOUTS = 5
"""A whole answer may take this many read timeouts: 64 MiB in 5 minutes."""


class BoundedAdapter(HTTPAdapter):
    """Adapter that fails if an answer is not complete in time: ``ReadTimeout`` of requests in its head,
    ``ConnectionError`` in its body."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        _bound(self.poolmanager)

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> PoolManager:
        return _bound(super().proxy_manager_for(*arguments, **options))


def _bound(manager: PoolManager) -> PoolManager:
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


class _TimedReader(io.RawIOBase):
    """Reader of a socket that fails when the time for the whole answer is over."""

    def __init__(self, inner: io.RawIOBase, connection: socket.socket) -> None:
        self._inner = inner
        self._socket = connection
        self._read_timeout = connection.gettimeout()
        self._end = None if self._read_timeout is None else SYSTEM.monotonic() + READ_TIMEOUTS * self._read_timeout

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._end is not None and self._read_timeout is not None:
            left = self._end - SYSTEM.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._socket.settimeout(min(left, self._read_timeout))
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock))


class _TimedConnection(HTTPConnection):
    response_class = _Response


class _TlsConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _TimedConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
