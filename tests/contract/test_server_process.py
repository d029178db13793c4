"""The server as a process: how it starts, refuses to, ends, and what a crash costs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from clearml_server import ClearmlServer
from http_api import Api
from waiting import HANG_S

StartServer = Callable[..., ClearmlServer]
Connect = Callable[[ClearmlServer], Api]


def run_server(data_dir: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail; returns the ended process."""
    return subprocess.run(
        [sys.executable, "-m", "hpc_agent", "server", "--data-dir", str(data_dir), *flags],
        env={**os.environ, "HOME": str(data_dir), "CLEARML_CONFIG_FILE": ""},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.fixture
def connect(api: Api) -> Iterator[Connect]:
    """A client for a server of the test's own."""
    clients = []

    def to(server: ClearmlServer) -> Api:
        clients.append(type(api)(server.url, server.conf))
        return clients[-1]

    yield to
    for client in clients:
        client.http.close()


def test_secrets_are_made_once_and_readable_by_their_owner_alone(
    start_clearml_server: StartServer,
) -> None:
    server = start_clearml_server()
    first = server.conf.read_text()
    port = urlsplit(server.url).port
    for name in ("clearml.conf", "secrets.json", "server.db"):
        assert stat.S_IMODE((server.data_dir / name).stat().st_mode) == 0o600
    assert server.stop() == 0
    assert start_clearml_server(port=port).conf.read_text() == first


def test_a_data_folder_that_the_server_makes_is_closed_to_others(tmp_path: Path) -> None:
    data_dir = tmp_path / "made" / "by" / "it"
    environ = {**os.environ, "HOME": str(tmp_path), "CLEARML_CONFIG_FILE": ""}
    argv = [sys.executable, "-m", "hpc_agent", "server", "--port", "0", "--data-dir", str(data_dir)]
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stdout.readline().startswith("Listening on ")
        server.terminate()
    made = [data_dir, *data_dir.parents[:2], *(path for path in data_dir.rglob("*") if path.is_dir())]
    assert {str(folder): oct(stat.S_IMODE(folder.stat().st_mode)) for folder in made} == dict.fromkeys(
        map(str, made), "0o700"
    )


def test_the_conf_is_written_where_it_is_wanted_and_names_every_server(
    start_clearml_server: StartServer, tmp_path: Path
) -> None:
    conf = tmp_path / "elsewhere.conf"
    server = start_clearml_server(tmp_path / "server", "--conf", str(conf))
    text = conf.read_text()
    assert f'api_server: "{server.url}"' in text
    assert f'web_server: "{server.url}"' in text
    assert f'files_server: "{server.url}/files"' in text
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600


def test_a_server_for_other_machines_is_named_after_this_one_and_says_that_it_is_open(
    start_clearml_server: StartServer,
) -> None:
    server = start_clearml_server(None, "--host", "0.0.0.0")
    assert urlsplit(server.url).hostname == socket.gethostname().lower()
    server.process.terminate()
    assert server.process.stdout is not None
    # Not communicate(): what the first readline() read ahead is in this very object.
    said = server.process.stdout.read()
    assert server.process.wait(15) == 0
    assert "without encryption" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start_clearml_server: StartServer, number: signal.Signals) -> None:
    server = start_clearml_server()
    server.process.send_signal(number)
    assert server.process.wait(15) == 0
    assert not (server.data_dir / "server.db-wal").exists()


def test_taken_port_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run_server(tmp_path, "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 2
    assert "is taken" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("flags", [("--host", "203.0.113.7"), ("--host", "no.such.host.invalid"), ("--port", "99999")])
def test_unusable_address_is_reported_in_one_sentence(tmp_path: Path, flags: tuple[str, ...]) -> None:
    ended = run_server(tmp_path, *(("--port", "0") if "--host" in flags else ()), *flags)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def test_a_second_server_on_the_same_folder_is_refused(start_clearml_server: StartServer) -> None:
    server = start_clearml_server()
    ended = run_server(server.data_dir, "--port", "0")
    assert ended.returncode == 2
    assert "another hpc-agent server is using" in ended.stderr


def test_invalid_database_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "server.db").write_bytes(b"not a database" * 100)
    ended = run_server(tmp_path, "--port", "0")
    assert ended.returncode == 2
    assert "server.db cannot be opened" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_database_of_an_older_version_gets_the_columns_it_lacks(
    start_clearml_server: StartServer, connect: Connect
) -> None:
    server = start_clearml_server()
    task = connect(server).task("old")
    server.stop()
    with contextlib.closing(sqlite3.connect(server.data_dir / "server.db")) as database:
        database.execute("ALTER TABLE tasks DROP COLUMN active_duration")
    later = connect(start_clearml_server(server.data_dir))
    later("tasks.started", task=task)
    later("tasks.completed", task=task)
    assert later("tasks.get_by_id", task=task)["task"]["active_duration"] == 0


def test_missing_extra_is_reported_in_one_sentence(tmp_path: Path) -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from hpc_agent.cli.main import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "server", "--data-dir", str(tmp_path)],
        env={**os.environ, "HOME": str(tmp_path), "CLEARML_CONFIG_FILE": ""},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 2
    assert "pip install 'hpc-agent[server]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


class Traffic:
    """Clients that create, enqueue, claim and report until the server is gone, and note what was acknowledged."""

    def __init__(self, api: Api, queue: str) -> None:
        self.api, self.queue = api, queue
        self.queued: set[str] = set()
        self.claimed: set[str] = set()
        self.lines: dict[str, str] = {}
        self.enough = threading.Event()

    def run(self, number: int) -> None:
        session = requests.Session()
        session.trust_env = False

        def ask(action: str, body: str) -> dict[str, Any]:
            answer = session.post(f"{self.api.url}/{action}", headers=self.api.headers, data=body, timeout=10)
            assert answer.status_code == 200, answer.text
            data: dict[str, Any] = answer.json()["data"]
            return data

        with session, contextlib.suppress(requests.RequestException):
            for i in range(10_000):
                task = ask("tasks.create", json.dumps({"name": f"{number}-{i}", "type": "training"}))["id"]
                ask("tasks.enqueue", json.dumps({"task": task, "queue": self.queue}))
                if i % 2:
                    self.queued.add(task)
                else:
                    # Before the answer it is not known on which side of the claim the crash falls.
                    ask("queues.remove_task", json.dumps({"task": task, "queue": self.queue}))
                    self.claimed.add(task)
                event = {"type": "log", "task": task, "msg": f"{number}-{i}", "timestamp": i}
                ask("events.add_batch", json.dumps(event))
                self.lines[task] = f"{number}-{i}"
                if len(self.lines) > 100:
                    self.enough.set()


def test_a_killed_server_loses_nothing_that_it_acknowledged(
    start_clearml_server: StartServer, connect: Connect
) -> None:
    server = start_clearml_server()
    api = connect(server)
    traffic = Traffic(api, api("queues.create", name="gpus")["id"])
    threads = [threading.Thread(target=traffic.run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert traffic.enough.wait(HANG_S)
    server.kill()
    for thread in threads:
        thread.join()
    api = connect(start_clearml_server(server.data_dir))
    waiting = {entry["task"] for entry in api("queues.get_by_id", queue=traffic.queue)["queue"]["entries"]}
    assert traffic.queued <= waiting
    assert not traffic.claimed & waiting
    assert traffic.lines
    for task, line in traffic.lines.items():
        assert api.status(task) == "queued"
        assert [event["msg"] for event in api("events.get_task_log", task=task)["events"]] == [line]
    with contextlib.closing(sqlite3.connect(server.data_dir / "server.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_data_folder_that_others_can_change_is_not_used(tmp_path: Path) -> None:
    """Who can write there can exchange the keys, and the database that says who is an administrator."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    ended = run_server(folder, "--port", "0")
    assert ended.returncode == 2
    assert "data folder" in ended.stderr and "chmod" in ended.stderr
    assert list(folder.iterdir()) == []
