"""Between client and ClearML server: answers that get lost, refusals, a proxy's pages, cut and garbled text."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import requests


class Trouble(Enum):
    """What happens to a call. Only LOST, CUT and GARBLED are carried out."""

    UNAUTHORIZED = "401"
    TOO_MANY = "429"
    BROKEN = "500"
    BAD_GATEWAY = "502, with a page"
    UNAVAILABLE = "503"
    PAGE = "200, with a proxy's page"
    RESET = "connection reset"
    LOST = "answer lost"
    CUT = "answer cut"
    GARBLED = "answer is not JSON"


_PAGE = b"<!DOCTYPE html><html><body><h1>Sign in to continue</h1></body></html>"
_STATUS = {
    Trouble.UNAUTHORIZED: 401,
    Trouble.TOO_MANY: 429,
    Trouble.BROKEN: 500,
    Trouble.BAD_GATEWAY: 502,
    Trouble.UNAVAILABLE: 503,
    Trouble.PAGE: 200,
}
Chooser = Callable[[str], Trouble | None]
"""Endpoint (``events.add_batch``) → what happens to this call of it."""


class Troubled:
    """``url`` is where clients go; ``choose`` may be replaced at any time."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.choose: Chooser = lambda _endpoint: None
        self.delay: Callable[[str], float] = lambda _endpoint: 0.0
        """Endpoint → seconds that its answer is held back."""
        self.largest: int | None = None
        """Bytes of a request; larger ones are refused, as proxies do, with a page and 413."""
        self.refuses = ""
        """Endpoint whose requests are refused so, whatever their size."""
        self.refused = 0
        """How many were."""
        self.met: Counter[Trouble] = Counter()
        self.on_answer: Callable[[str, bytes, int], None] = lambda _endpoint, _request, _status: None
        """Called with what the server itself answered."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def run(self) -> None:
        self._http.serve_forever(0.05)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def troubled(server: str) -> Iterator[Troubled]:
    proxy = Troubled(server)
    thread = threading.Thread(target=proxy.run)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()


def _handler(proxy: Troubled) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            endpoint = urlsplit(self.path).path.rpartition("/")[2]
            trouble = proxy.choose(endpoint)
            time.sleep(proxy.delay(endpoint))
            if endpoint == proxy.refuses or (proxy.largest is not None and len(body) > proxy.largest):
                proxy.refused += 1
                self._answer(413, _PAGE)
                return
            if trouble is not None:
                proxy.met[trouble] += 1
            if trouble is Trouble.RESET:
                self.close_connection = True
            elif trouble in _STATUS:
                self._answer(_STATUS[trouble], _PAGE)
            else:
                self._pass_on(endpoint, body, trouble)

        def _pass_on(self, endpoint: str, body: bytes, trouble: Trouble | None) -> None:
            wanted = ("Authorization", "Content-Type", "X-ClearML-Worker")
            headers = {name: self.headers[name] for name in wanted if name in self.headers}
            try:
                answer = requests.post(proxy.server + self.path, data=body, headers=headers, timeout=30)
            except requests.RequestException:
                self.close_connection = True
                return
            proxy.on_answer(endpoint, body, answer.status_code)
            if trouble is Trouble.LOST:
                self.close_connection = True
            elif trouble is Trouble.CUT:
                self._answer(answer.status_code, answer.content[: len(answer.content) // 2], len(answer.content))
            elif trouble is Trouble.GARBLED:
                self._answer(answer.status_code, b"\x00\xff" + answer.content[5:])
            else:
                self._answer(answer.status_code, answer.content)

        def _answer(self, status: int, content: bytes, length: int | None = None) -> None:
            self.close_connection = True
            with suppress(ConnectionError):  # the client was killed meanwhile
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content) if length is None else length))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing: a test's output is for its failures."""

    return Handler
