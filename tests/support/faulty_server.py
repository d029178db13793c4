"""A ClearML server with faults: calls go to the real one, but some are refused, and some answers get lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import requests

REFUSED = "refused"
"""Answered with 400 and not carried out."""
LOST = "lost"
"""Carried out, but the connection ends before the answer."""
LOST_ONCE = "lost once"
"""As LOST for the first call."""
AWAY = "away"
"""A proxy says that no server is there."""
EMPTY = "empty"
"""The list in the answer is empty."""
EMPTY_ONCE = "empty once"
"""As EMPTY for the first call: what is listed came into being in this moment."""


@contextmanager
def faulty_server(url: str, faults: dict[str, str]) -> Iterator[str]:
    """The address of a proxy before ``url``. ``faults``: action → one of these words; after
    ``action <task>`` only where that task is asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            action = urlsplit(self.path).path.rpartition("/")[2]
            fault = faults.get(action) or faults.get(f"{action} {asked_for(body)}")
            if fault == REFUSED:
                self._answer(400, json.dumps(refusal(action)).encode())
                return
            if fault == AWAY:
                self._answer(503, b"<html>Service Unavailable</html>")
                return
            answer = requests.post(url + self.path, data=body, headers=self._passed_on(), timeout=30)
            if fault in (LOST, LOST_ONCE):
                if fault == LOST_ONCE:
                    del faults[action]
                self.close_connection = True
                return
            if fault == EMPTY_ONCE:
                del faults[action]
            content = emptied(answer.json()) if fault in (EMPTY, EMPTY_ONCE) else answer.content
            self._answer(answer.status_code, content)

        def _passed_on(self) -> dict[str, str]:
            return {name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers}

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing: a test's output is for its failures."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def asked_for(body: bytes) -> str:
    data = json.loads(body) if body.startswith(b"{") and b"\n" not in body else {}
    return str(data.get("task", ""))


def emptied(answer: dict[str, Any]) -> bytes:
    data = {name: [] if isinstance(value, list) else value for name, value in answer["data"].items()}
    return json.dumps({**answer, "data": data}).encode()


def refusal(action: str) -> dict[str, Any]:
    endpoint = {"name": action, "requested_version": "2.14", "actual_version": "2.14"}
    meta = {"id": "1", "trx": "1", "endpoint": endpoint, "result_code": 400, "result_subcode": 0}
    return {"meta": {**meta, "result_msg": "made to fail"}, "data": {}}
