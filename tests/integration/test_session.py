"""A conversation with a server of few words: how often it is logged in to, and when its certificate counts."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from certificates import make_certificate
from manual_clock import ManualClock

from hpc_agent.api.session import ApiSession
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.errors import ConfigError
from hpc_agent.redact import Secret
from hpc_agent.retry import ONCE

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


@contextmanager
def server(claims: dict[str, float], context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """A server whose tokens have these claims: its address and the endpoints that were called."""
    called: list[str] = []
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            called.append(self.path.rpartition("/")[2])
            answer = {"meta": {"result_code": 200}, "data": {"token": f"h.{payload}.s"}}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: a test's output is for its failures."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
    listening.handle_error = lambda *_: None  # type: ignore[method-assign] # who refuses our certificate hangs up
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{listening.server_address[1]}", called
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def session(url: str, clock: ManualClock, verify: bool | str = True) -> ApiSession:
    settings = ApiSettings(api_server=url, access_key="K", secret_key=Secret("S"), verify_certificate=verify)
    return ApiSession(settings, clock=clock, budget=ONCE)


@pytest.mark.parametrize(("life", "renewed_after"), [(120, 60), (3600, 3000)])
@pytest.mark.parametrize("ahead", [0, -86400, 86400], ids="server's clock {} ahead".format)
def test_a_token_serves_until_half_its_life_or_ten_minutes_before_its_end(
    life: int, renewed_after: int, ahead: int
) -> None:
    issued = NOW.timestamp() + ahead
    clock = ManualClock(NOW)
    with server({"iat": issued, "exp": issued + life}) as (url, called):
        client = session(url, clock)
        client.call("tasks.ping")
        clock.advance(renewed_after - 1)
        client.call("tasks.ping")
        assert called.count("auth.login") == 1
        clock.advance(2)
        client.call("tasks.ping")
        assert called.count("auth.login") == 2


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate that is not signed."""
    certificate, key = make_certificate(tmp_path, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


def test_the_certificate_counts_as_configured_whatever_the_environment_says(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, context = certificate
    import certifi

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    with server({}, context) as (url, called):
        for verify in (False, str(bundle)):
            session(url, ManualClock(NOW), verify).call("tasks.ping")
        assert called.count("tasks.ping") == 2
        with pytest.raises(ConfigError, match="certificate"):
            session(url, ManualClock(NOW), True).call("tasks.ping")
