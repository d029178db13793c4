"""``hpc-agent server backup``: one moment of a database that is written meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from clearml_server import ClearmlServer
from click.testing import CliRunner
from http_api import Api
from server_core import ServerCore

from hpc_agent.cli.main import group
from hpc_agent.errors import ConfigError
from hpc_agent.server.store.backup import back_up

StartServer = Callable[..., ClearmlServer]


def backup(data_dir: Path, target: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "hpc_agent", "server", "backup", str(target), "--data-dir", str(data_dir)]
    env = {**os.environ, "HOME": str(target.parent), "CLEARML_CONFIG_FILE": ""}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)


def test_a_backup_of_a_running_server_is_a_database_that_a_server_starts_with(
    start_clearml_server: StartServer, tmp_path: Path
) -> None:
    server = start_clearml_server()
    api = Api(server.url, server.conf)
    tasks = {api.task(f"task {number}") for number in range(5)}
    target = tmp_path / "copies" / "server.db"
    target.parent.mkdir()
    done = backup(server.data_dir, target)
    assert done.returncode == 0, done.stderr
    assert str(server.data_dir / "files") in done.stdout
    assert [path.name for path in target.parent.iterdir()] == ["server.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    later = api.task("after the copy")
    restored = tmp_path / "restored"
    restored.mkdir(mode=0o700)
    shutil.copy(target, restored)
    again = start_clearml_server(restored)
    copy = Api(again.url, again.conf)
    assert {task["id"] for task in copy("tasks.get_all", only_fields=["id"])["tasks"]} == tasks
    assert later not in tasks
    for client in (api, copy):
        client.http.close()


def test_a_copy_goes_on_while_others_write(tmp_path: Path) -> None:
    """SQLite's own way to copy in steps begins again with each change by another connection, and so never ends."""
    server = ServerCore(tmp_path)
    for number in range(20):
        server("tasks.create", name=f"task {number}", type="training", comment="x" * 1_000_000)
    over = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not over.is_set():
            server("tasks.create", name=f"meanwhile {written}", type="training")
            written += 1

    steps: list[int] = []
    seen: list[int] = []

    def progress(done: int, pages: int) -> None:
        steps.append(done)
        before = written
        # Between two steps there is a change for sure.
        while written == before:
            over.wait(0.001)
        seen.append(written)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        back_up(tmp_path / "server.db", tmp_path / "copy.db", progress)
    finally:
        over.set()
        writer.join()
        server.close()
    assert steps == sorted(set(steps)) and len(steps) > 1
    assert len(set(seen)) == len(seen)
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copy.execute("SELECT count(*) FROM tasks WHERE name LIKE 'task %'").fetchone() == (20,)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (".", "is a folder"),
        ("data/server.db", "is the server's own database"),
        ("none/such/copy.db", "could not be copied"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused(tmp_path: Path, target: str, message: str) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    ServerCore(data_dir).close()
    before = (data_dir / "server.db").read_bytes()
    with pytest.raises(ConfigError, match=message):
        back_up(data_dir / "server.db", tmp_path / target)
    assert (data_dir / "server.db").read_bytes() == before


def test_a_folder_without_a_database_is_named(tmp_path: Path) -> None:
    done = backup(tmp_path / "nothing", tmp_path / "copy.db")
    assert done.returncode == 2
    assert "there is no database" in done.stderr and "--data-dir" in done.stderr
    assert not (tmp_path / "copy.db").exists()


def test_a_flag_in_front_of_the_command_is_not_ignored(tmp_path: Path) -> None:
    done = CliRunner().invoke(group, ["server", "--data-dir", str(tmp_path), "backup", str(tmp_path / "copy.db")])
    assert done.exit_code == 2
    assert "--data-dir is for the server itself; options of backup follow it" in done.output
