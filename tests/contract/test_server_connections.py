"""Clients that connect and say nothing, or little: the server goes on answering the others. Over real sockets."""

from __future__ import annotations

import logging
import resource
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import uvicorn
from certificates import make_certificate

from hpc_agent.server.connections import Connection, Connections, Limits, Stage, address_group
from hpc_agent.server.http_server import HttpServer, limits_for
from hpc_agent.server.startup import CertificateFiles, OncePerMinute

SHORT = Limits(total=50, per_address=20, head=0.5, silence=0.5, stalled=1.0)
LONG = Limits(total=50, per_address=20)
ANSWER = 20 * 1024 * 1024


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Takes in the request's body, then answers, on some paths much or before."""
    if scope["path"] == "/early":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/early":
        return
    body = b"x" * (ANSWER if scope["path"] == "/much" else 2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(limits: Limits, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        config = uvicorn.Config(application, http="h11", lifespan="off", log_config=None)
        server = HttpServer(config, listener, limits, tls)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join()


def ends(connection: socket.socket) -> bool:
    """Whether the other side closes it before a generous time is over."""
    connection.settimeout(20)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def answers(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.recv(12) == b"HTTP/1.1 200"


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    "head", [b"", b"GET / HTTP/1.1\r\nX-a:", b"POST /tasks.get_all HTTP/1.1\r\nContent-Length: 9\r\n\r\n"]
)
@pytest.mark.usefixtures("many_descriptors")
def test_thousands_of_idle_connections_do_not_block_others(start_clearml_server: Any, api: Any, head: bytes) -> None:
    # The server gets what a login shell gives, and raises it by itself.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    server = start_clearml_server()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    client = type(api)(server.url, server.conf)
    where = urlsplit(server.url)
    with ExitStack() as idle:
        for _ in range(2500):
            connection = idle.enter_context(socket.create_connection((where.hostname, where.port), timeout=20))
            connection.sendall(head)
        for number in range(20):
            assert client("tasks.get_all", name=f"^{number}$")["tasks"] == []
    client.http.close()


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nX-a: b\r\n"])
def test_a_connection_without_a_whole_head_is_closed(sent: bytes) -> None:
    with serving(SHORT) as address, socket.create_connection(address) as connection:
        connection.sendall(sent)
        assert ends(connection)


def test_a_head_that_drips_is_closed_too() -> None:
    with serving(SHORT) as address, socket.create_connection(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        closed = threading.Event()

        def watch() -> None:
            if ends(connection):
                closed.set()

        threading.Thread(target=watch).start()
        with pytest.raises(OSError):
            for _ in range(200):
                connection.sendall(b"X-a: b\r\n")
                closed.wait(0.1)
        assert closed.is_set()


def test_stalled_body_is_closed_and_slow_body_is_not() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n"
    with serving(replace(SHORT, head=4, silence=4)) as address, ExitStack() as open_:
        silent, slow = (open_.enter_context(socket.create_connection(address)) for _ in range(2))
        silent.sendall(head + b"x")
        slow.sendall(head)
        for _ in range(60):
            # Six seconds in all: longer than a silence may be.
            threading.Event().wait(0.1)
            slow.sendall(b"x")
        assert slow.recv(12) == b"HTTP/1.1 200"
        assert ends(silent)


def test_a_client_that_takes_nothing_of_its_answer_is_closed() -> None:
    with serving(SHORT) as address, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address)
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        # Seen from the server's side: what it holds for us is dropped, so that what comes later is not a whole answer.
        threading.Event().wait(5)
        taken = 0
        with pytest.raises((ConnectionResetError, EOFError)):
            while True:
                piece = connection.recv(1024 * 1024)
                taken += len(piece)
                if not piece:
                    raise EOFError
        assert taken < ANSWER


def test_incomplete_request_is_closed_before_running_upload() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    with serving(LONG) as address, ExitStack() as idle, socket.create_connection(address) as upload:
        upload.sendall(head + b"first")
        first = idle.enter_context(socket.create_connection(address))
        for _ in range(100):
            idle.enter_context(socket.create_connection(address))
        assert ends(first)
        assert answers(address)
        upload.sendall(b"last.")
        assert upload.recv(12) == b"HTTP/1.1 200"


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_body_in_one_byte_chunks_is_refused() -> None:
    with serving(LONG) as address, ExitStack() as stack:
        tiny, useful = (stack.enter_context(socket.create_connection(address)) for _ in range(2))
        tiny.sendall(CHUNKED + b"1\r\na\r\n" * 5000)
        assert tiny.recv(12) == b"HTTP/1.1 400"
        useful.sendall(CHUNKED + b"1\r\na\r\n" * 100 + (b"200\r\n" + b"a" * 512 + b"\r\n") * 5000 + b"0\r\n\r\n")
        assert useful.recv(12) == b"HTTP/1.1 200"


def test_bodies_in_tiny_chunks_do_not_delay_other_clients(clearml_server: Any, api: Any) -> None:
    """Ten of them kept the server from every other request for as long as they sent."""
    where = urlsplit(clearml_server.url)
    over = threading.Event()

    def chop() -> None:
        while not over.is_set():
            with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
                connection.sendall(CHUNKED)
                with suppress(OSError):
                    while not over.is_set():
                        connection.sendall(b"1\r\na\r\n" * 20_000)

    strangers = [threading.Thread(target=chop) for _ in range(10)]
    for stranger in strangers:
        stranger.start()
    try:
        for _ in range(10):
            assert api("tasks.get_all", page_size=1, only_fields=["id"]) is not None
    finally:
        over.set()
        for stranger in strangers:
            stranger.join()


def test_a_head_of_thousands_of_headers_is_refused_before_it_is_read() -> None:
    with serving(LONG) as address, socket.create_connection(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 300)
        answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"200 headers" in answer


def test_a_body_that_turns_to_nonsense_behind_half_an_answer_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving(LONG) as address, socket.create_connection(address) as connection:
        connection.sendall(CHUNKED.replace(b" / ", b" /early "))
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.sendall(b"zz\r\n")
        connection.settimeout(20)
        while connection.recv(4096):
            pass
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "localhost")


def test_a_connection_that_begins_no_tls_is_closed_and_counted(certificate: tuple[Path, Path]) -> None:
    tls = CertificateFiles(*certificate).load()
    with serving(replace(SHORT, head=2.0), tls) as address, ExitStack() as idle:
        silent = [idle.enter_context(socket.create_connection(address)) for _ in range(100)]
        context = ssl.create_default_context(cafile=str(certificate[0]))
        with context.wrap_socket(socket.create_connection(address), server_hostname="127.0.0.1") as good:
            good.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert good.recv(12) == b"HTTP/1.1 200"
        assert all(ends(connection) for connection in silent)


class Accepted:
    """Replaces a socket whose end is asked for."""

    def __init__(self) -> None:
        self.ended = False

    def shutdown(self, how: int) -> None:
        self.ended = True


@pytest.fixture
def connect() -> Callable[..., tuple[Connection | None, Accepted]]:
    def to(connections: Connections, address: str, now: float) -> tuple[Connection | None, Accepted]:
        accepted = Accepted()
        return connections.admit(accepted, (address, 1), now), accepted  # type: ignore[arg-type]

    return to


def test_the_address_with_most_connections_pays_for_a_full_server(connect: Any) -> None:
    connections = Connections(Limits(total=5, per_address=4))
    _, other_socket = connect(connections, "10.0.0.2", 0)
    crowd = [connect(connections, "10.0.0.1", second) for second in range(1, 5)]
    assert connect(connections, "10.0.0.3", 9)[0] is not None
    assert [accepted.ended for _, accepted in crowd] == [True, False, False, False]
    assert not other_socket.ended


def test_complete_requests_of_one_address_do_not_protect_incomplete_ones_of_others(connect: Any) -> None:
    connections = Connections(Limits(total=5, per_address=4))
    for second in range(3):
        connect(connections, "10.0.0.1", second)[0].stage = Stage.ANSWER
    idle = [connect(connections, "10.0.0.2", second)[1] for second in range(4, 6)]
    assert connect(connections, "10.0.0.3", 9)[0] is not None
    assert [accepted.ended for accepted in idle] == [True, False]


def test_address_with_only_complete_requests_gets_no_further_connection(connect: Any) -> None:
    connections = Connections(Limits(total=9, per_address=2))
    for second in range(2):
        connection, _ = connect(connections, "10.0.0.1", second)
        connection.stage = Stage.ANSWER
    assert connect(connections, "10.0.0.1", 5)[0] is None
    assert connect(connections, "10.0.0.2", 5)[0] is not None
    connections.forget(connection)
    assert connect(connections, "10.0.0.1", 6)[0] is not None


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not an address", "not an address"),
    ],
)
def test_addresses_that_one_machine_may_have_count_as_one(address: str, group: str) -> None:
    assert address_group(address) == group


@pytest.mark.parametrize("descriptors", [64, 256, 1024, 65536])
def test_the_limits_stay_below_the_descriptors(descriptors: int) -> None:
    limits = limits_for(descriptors, 200)
    assert 0 < limits.per_address <= limits.total <= descriptors / 2


def test_a_line_that_strangers_cause_is_written_once_a_minute() -> None:
    quiet = OncePerMinute()

    def line(text: str, at: float) -> bool:
        record = logging.LogRecord("asyncio", logging.ERROR, "selector_events.py", 7, text, None, None)
        record.created = at
        return bool(quiet.filter(record))

    assert [line("socket.accept() out of system resource", at) for at in (0, 1, 59, 61)] == [True, False, False, True]
    assert line("another one", 61)


def test_the_log_stays_small_under_malformed_requests(clearml_server: Any, api: Any, capfd: Any) -> None:
    headers = {**api.headers, "Content-Type": "multipart/form-data; boundary=b"}
    for _ in range(50):
        assert requests.post(f"{clearml_server.url}/files", data=b"--x\r\nnothing", headers=headers).status_code == 400
        where = urlsplit(clearml_server.url)
        with socket.create_connection((where.hostname, where.port)) as connection:
            connection.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 400"
    assert len(capfd.readouterr().err.splitlines()) < 20
