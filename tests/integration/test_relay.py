"""The relay in one process: a program on a "node" that knows the proxy only, a server, and both kinds of link."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
import requests
from certificates import make_certificate
from waiting import empty, equals, wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.config.relay_settings import RelaySettings
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.errors import ConfigError
from hpc_agent.redact import Secret
from hpc_agent.relay.connector import keep_announced, relay
from hpc_agent.relay.file_link import AHEAD, ANSWER_S, FileRelay, FileStream, connect
from hpc_agent.relay.loop_thread import LoopThread
from hpc_agent.relay.node_proxy import node_proxy
from hpc_agent.relay.relay_folder import ListenRecord, RelayFolder
from hpc_agent.relay.stream import ByteStream
from hpc_agent.relay.target import RelayTarget


class _Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = f"{self.path} {len(body)} {sum(body)} {self.headers.get('Proxy-Authorization')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        data = bytes(range(256)) * 4096
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


Use = Callable[..., dict[str, str]]


@pytest.fixture(params=["network", "files"])
def use(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Use]:
    """``use(url, *allowed)``: a daemon and a node; returns the environment of a program on the node."""
    with ExitStack() as stack:

        def both(url: str, *allowed: str) -> dict[str, str]:
            settings = _settings(tmp_path, url, request.param, *allowed)
            stack.enter_context(relay(settings, "c", "login:1", SYSTEM))
            environ: dict[str, str] = {}
            stack.enter_context(node_proxy(settings, "c", environ))
            return environ

        yield both


def _settings(root: Path, url: str, through: str, *allowed: str) -> AllSettings:
    chosen = RelaySettings(through=through, host="127.0.0.1", allowed=allowed)  # type: ignore[arg-type]
    return AllSettings(api=ApiSettings(api_server=url, files_server=url), hpc=HpcSettings(root=root, relay=chosen))


def _url(server: ThreadingHTTPServer, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.server_address[1]}"


def _session(environ: dict[str, str]) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.proxies = {"http": environ["http_proxy"], "https": environ["https_proxy"]}
    return session


def test_requests_and_large_bodies_reach_the_server(use: Use, server: ThreadingHTTPServer) -> None:
    url = _url(server)
    session = _session(use(url))
    body = os.urandom(300_000)
    for number in range(3):
        answer = session.post(f"{url}/v2.14/tasks.get_all?n={number}", data=body, timeout=60)
        assert answer.text == f"/v2.14/tasks.get_all?n={number} {len(body)} {sum(body)} None"
    assert session.get(f"{url}/file", timeout=60).content == bytes(range(256)) * 4096


def test_an_encrypted_connection_stays_encrypted_up_to_the_server(
    use: Use, server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    certificate, key = make_certificate(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = _url(server, "https")
    session = _session(use(url))
    for _ in range(2):
        assert session.post(f"{url}/x", data=b"ab", timeout=60, verify=str(certificate)).text == "/x 2 195 None"


def test_other_hosts_are_refused_with_a_sentence(use: Use, server: ThreadingHTTPServer) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as other:
        answer = _session(use(_url(server))).get(f"{_url(other)}/x", timeout=60)
    assert answer.status_code == 403
    assert f"127.0.0.1:{other.server_address[1]} is not reached from this node" in answer.text
    assert "hpc.relay.allowed opens further hosts" in answer.text


def test_hosts_that_the_site_allows_are_reached(use: Use, server: ThreadingHTTPServer) -> None:
    url = _url(server)
    environ = use("http://127.0.0.1:1", f"127.0.0.1:{server.server_address[1]}")
    assert _session(environ).post(f"{url}/x", data=b"a", timeout=60).status_code == 200
    away = _session(environ).get("http://127.0.0.1:1/x", timeout=60)
    assert away.status_code == 502 and "the login node does not reach 127.0.0.1:1" in away.text


def test_another_user_of_the_node_gets_nothing(use: Use, server: ThreadingHTTPServer) -> None:
    url = _url(server)
    proxy = use(url)["http_proxy"].rpartition("@")[2]
    for user in ("", "job:wrong@"):
        session = _session({"http_proxy": f"http://{user}{proxy}", "https_proxy": f"http://{user}{proxy}"})
        answer = session.get(f"{url}/x", timeout=60)
        assert answer.status_code == 407 and "another user's job" in answer.text


def test_without_a_daemon_the_error_says_so(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    with node_proxy(_settings(tmp_path, "http://127.0.0.1:1", "network"), "c", environ):
        answer = _session(environ).get("http://127.0.0.1:1/x", timeout=60)
    assert answer.status_code == 502 and "no daemon offers a relay; is it running?" in answer.text


def test_a_node_with_another_secret_is_refused(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    url = _url(server)
    environ: dict[str, str] = {}
    settings = _settings(tmp_path, url, "network")
    with relay(settings, "c", "login:1", SYSTEM):
        (tmp_path / "relay" / "c" / "secret.json").write_text('{"secret": "guessed"}')
        with node_proxy(settings, "c", environ):
            answer = _session(environ).get(f"{url}/x", timeout=60)
    assert answer.status_code == 502 and "does not know the secret of this cluster's jobs" in answer.text


class _Impostor(socketserver.StreamRequestHandler):
    """Listens where a daemon listened once, and answers as one; ``answers`` are its two lines."""

    def handle(self) -> None:
        first, second = self.server.answers  # type: ignore[attr-defined]
        self.wfile.write(first)
        self.rfile.readline()
        self.wfile.write(second)
        self.server.heard += self.rfile.read()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((b"00\n", b"OK\n"), id="without a proof"),
        pytest.param((b"00\n", b"\xff\xfe OK\n"), id="not text"),
        pytest.param((b"00\n", b"0" * 64 + b" OK\n"), id="a wrong proof"),
        pytest.param((b"220 mail.example\n", b"500 unknown command\n"), id="another program"),
    ],
)
def test_what_took_the_port_of_a_daemon_that_ended_is_passed_over_and_reads_nothing(
    tmp_path: Path, server: ThreadingHTTPServer, answers: tuple[bytes, bytes]
) -> None:
    url = _url(server)
    environ: dict[str, str] = {}
    settings = _settings(tmp_path, url, "network")
    folder = RelayFolder(tmp_path, "c")
    with ExitStack() as stack:
        impostor = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Impostor))
        impostor.answers, impostor.heard = answers, b""  # type: ignore[attr-defined]
        threading.Thread(target=impostor.serve_forever, daemon=True).start()
        stack.callback(impostor.shutdown)
        stack.enter_context(node_proxy(settings, "c", environ))
        ended = ListenRecord("127.0.0.1", impostor.server_address[1], SYSTEM.now() + timedelta(minutes=1))
        folder.announce("login:0", ended)
        alone = _session(environ).post(f"{url}/x", data=b"api key", timeout=60)
        stack.enter_context(relay(settings, "c", "login:1", SYSTEM))
        assert folder.listening()[0] == ended
        assert _session(environ).post(f"{url}/x", data=b"api key", timeout=60).status_code == 200
    assert alone.status_code == 502
    assert impostor.heard == b""  # type: ignore[attr-defined]


def test_a_proof_for_one_daemon_is_none_for_another(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    """A program at the address of a daemon that ended passes all on to one that runs, and reads along."""
    url = _url(server)
    environ: dict[str, str] = {}
    settings = _settings(tmp_path, url, "network")
    folder = RelayFolder(tmp_path, "c")
    with ExitStack() as stack:
        stack.enter_context(relay(settings, "c", "login:1", SYSTEM))
        [daemon] = folder.listening()
        between = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        folder.announce("login:1", ListenRecord("127.0.0.1", between.getsockname()[1], SYSTEM.now()))
        heard: list[bytes] = []
        threading.Thread(target=_pass_on, args=(between, daemon.port, heard), daemon=True).start()
        stack.enter_context(node_proxy(settings, "c", environ))
        assert _session(environ).post(f"{url}/x", data=b"api key", timeout=60).status_code == 502
    assert len(heard) == 1


def _pass_on(listener: socket.socket, port: int, heard: list[bytes]) -> None:
    node, _ = listener.accept()
    with node, socket.create_connection(("127.0.0.1", port)) as daemon:
        node.sendall(daemon.recv(1000))
        heard.append(node.recv(100_000))
        daemon.sendall(heard[0])
        while answer := daemon.recv(100_000):
            node.sendall(answer)
            heard.append(node.recv(100_000))


def test_a_refusal_that_names_many_hosts_is_read(use: Use) -> None:
    environ = use("http://127.0.0.1:1", *(f"mirror-{number}.packages.example.org" for number in range(60)))
    answer = _session(environ).get("http://elsewhere.example.org/x", timeout=60)
    assert answer.status_code == 403
    assert "mirror-9.packages.example.org:80; hpc.relay.allowed opens further hosts" in answer.text


def test_a_daemon_that_moved_is_found_by_the_next_connection(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    url = _url(server)
    environ: dict[str, str] = {}
    settings = _settings(tmp_path, url, "network")
    with node_proxy(settings, "c", environ):
        for daemon in ("login1:1", "login2:1"):
            with relay(settings, "c", daemon, SYSTEM):
                assert _session(environ).post(f"{url}/x", data=b"a", timeout=60).status_code == 200
        assert _session(environ).get(f"{url}/x", timeout=60).status_code == 502


def test_a_daemon_that_lives_comes_before_one_that_died_later_than_it_began(tmp_path: Path) -> None:
    folder = RelayFolder(tmp_path, "c")
    folder.announce("lives", ListenRecord("127.0.0.1", 1, SYSTEM.now()))
    folder.announce("died", ListenRecord("127.0.0.1", 2, SYSTEM.now()))
    assert [record.port for record in folder.listening()] == [2, 1]
    with LoopThread("relay") as loop:
        loop.spawn(keep_announced(folder, "lives", "127.0.0.1", 1, SYSTEM, every=0.05))
        wait_until("the order", lambda: [record.port for record in folder.listening()], equals([1, 2]))


def test_connections_through_files_leave_nothing_behind(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    url = _url(server)
    environ: dict[str, str] = {}
    settings = _settings(tmp_path, url, "files")
    folder = RelayFolder(tmp_path, "c")
    with relay(settings, "c", "login:1", SYSTEM), node_proxy(settings, "c", environ):
        session = _session(environ)
        assert session.post(f"{url}/x", data=b"a", timeout=60).status_code == 200
        session.close()
        wait_until("the connection's folder to go", lambda: list(folder.connections.iterdir()), empty)


def test_ends_that_close_at_the_same_time_do_not_wait_for_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "connection"
    folder.mkdir()

    async def close_both() -> None:
        node = FileStream(folder, sends="up", receives="down", owns=False)
        daemon = FileStream(folder, sends="down", receives="up", owns=True)
        await node.write(b"never read")
        await node.close()
        await asyncio.wait_for(daemon.close(), ANSWER_S / 2)

    asyncio.run(close_both())
    assert not folder.exists()


def test_an_end_that_reads_slowly_holds_the_sender_back(tmp_path: Path) -> None:
    folder = RelayFolder(tmp_path, "c")

    async def send() -> int:
        opened = asyncio.Event()

        async def open_target(_: RelayTarget) -> ByteStream:
            opened.set()
            return _Stalled()

        daemon = asyncio.create_task(FileRelay(folder, open_target).run())
        node = await connect(folder, RelayTarget("api.example.org", 443))
        await opened.wait()
        [connection] = folder.connections.iterdir()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_write_all(node, pieces=500), 5)
        unread = sum(1 for _ in connection.glob("up.*"))
        shutil.rmtree(connection)
        daemon.cancel()
        return unread

    assert asyncio.run(send()) <= 2 * AHEAD


async def _write_all(stream: ByteStream, pieces: int) -> None:
    for _ in range(pieces):
        await stream.write(b"x" * 1000)


class _Stalled:
    """``ByteStream`` of a server that takes nothing."""

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


def test_secret_and_folders_are_for_their_user_alone(tmp_path: Path) -> None:
    folder = RelayFolder(tmp_path, "c")
    assert folder.secret() == folder.secret() != Secret("")
    for path in (folder.path, folder.connections, folder.path / "secret.json"):
        assert path.stat().st_mode & 0o077 == 0


def test_an_address_of_another_machine_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "http://127.0.0.1:1", "network")
    elsewhere = msgspec.structs.replace(settings.hpc.relay, host="192.0.2.7")
    settings = msgspec.structs.replace(settings, hpc=msgspec.structs.replace(settings.hpc, relay=elsewhere))
    with pytest.raises(ConfigError, match=r"the relay cannot listen on 192\.0\.2\.7 .*hpc\.relay\.host is an address"):
        relay(settings, "c", "login:1", SYSTEM).__enter__()


def test_what_need_not_relay_leaves_the_port_to_the_daemon(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    url = _url(server)
    environ: dict[str, str] = {}
    settings = _settings(tmp_path, url, "network")
    with relay(settings, "c", "login:1", SYSTEM):
        [daemon] = RelayFolder(tmp_path, "c").listening()
        same = msgspec.structs.replace(settings.hpc.relay, port=daemon.port)
        settings = msgspec.structs.replace(settings, hpc=msgspec.structs.replace(settings.hpc, relay=same))
        with pytest.raises(ConfigError, match=r"the relay cannot listen on 127\.0\.0\.1:\d+ .*in use"):
            relay(settings, "c", "login:2", SYSTEM).__enter__()
        with relay(settings, "c", "login:follow:3", SYSTEM, required=False), node_proxy(settings, "c", environ):
            assert RelayFolder(tmp_path, "c").listening() == [daemon]
            assert _session(environ).post(f"{url}/x", data=b"a", timeout=60).status_code == 200
        assert RelayFolder(tmp_path, "c").listening() == [daemon]


def test_rubbish_is_answered_and_disturbs_no_other_connection(use: Use, server: ThreadingHTTPServer) -> None:
    url = _url(server)
    environ = use(url)
    port = int(environ["http_proxy"].rpartition(":")[2])
    for rubbish in (b"\x16\x03\x01\r\n\r\n", b"GET /x HTTP/1.1\r\n\r\n", b"CONNECT nowhere HTTP/1.1\r\n\r\n"):
        with closing(socket.create_connection(("127.0.0.1", port), 10)) as connection:
            connection.sendall(rubbish)
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert _session(environ).post(f"{url}/x", data=b"a", timeout=60).status_code == 200
