"""Hostile ClearML server on loopback: it logs clients in and gives any answer that is chosen."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from hpc_agent.api.client import Client
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.redact import Secret
from hpc_agent.retry import ONCE


def token(**claims: object) -> str:
    """A token with these claims; its signature is not checked."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.x"


LOGIN = {"token": token(api_version="2.31")}


@dataclass(frozen=True)
class Answer:
    """A status, headers, and a body that may go on forever. ``raw``: what is sent instead of all that."""

    body: bytes | Callable[[], Iterable[bytes]]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: Callable[[], Iterable[bytes]] | None = None


def data(value: object) -> Answer:
    """A good answer with this for its ``data``."""
    return Answer(json.dumps({"meta": {"result_code": 200}, "data": value}).encode())


@dataclass
class HostileServer:
    """``answers`` by endpoint (``tasks.get_all``), which may be changed at any time; what is not there is refused."""

    url: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def say(self, **answers: Answer) -> None:
        """Forget what was to be said before; the names have ``__`` for the dot."""
        self.asked.clear()
        self.answers.clear()
        self.answers.update({"auth.login": data(LOGIN)})
        self.answers.update({name.replace("__", "."): answer for name, answer in answers.items()})

    def client(self, patience: float = 5.0) -> Client:
        settings = ApiSettings(
            api_server=self.url, files_server=self.url, access_key="KEY", secret_key=Secret("SECRET")
        )
        return Client(settings, budget=ONCE, timeouts=(patience, patience))


@contextmanager
def serving(server: HostileServer) -> Iterator[HostileServer]:
    """Serve until the end of the block."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    server.say()
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(server: HostileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: else each answer waits 40 ms for an acknowledgement

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            endpoint = self.path.rpartition("/")[2]
            server.asked.append(endpoint)
            refusal = Answer(b'{"meta": {"result_code": 400, "result_subcode": 0, "result_msg": "no"}}', 400)
            self._send(server.answers.get(endpoint, refusal))

        do_GET = do_POST

        def _send(self, answer: Answer) -> None:
            if answer.raw is not None:
                self.close_connection = True
                self._send_pieces(answer.raw())
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if isinstance(answer.body, bytes):
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                pieces: Iterable[bytes] = [answer.body]
            else:
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                pieces = answer.body()
            self._send_pieces(pieces)

        def _send_pieces(self, pieces: Iterable[bytes]) -> None:
            # It leaves as soon as it has had enough.
            with suppress(ConnectionError, socket.timeout):
                for piece in pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()

        def finish(self) -> None:
            # The receiver of what was still to be sent is gone.
            with suppress(OSError):
                super().finish()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
