"""Commands that cannot do what they are asked: one sentence on stderr, an exit code, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``hpc-agent`` with a root of its own; its server does not answer."""

    def run(*words: str, program: str = "main", **env: str) -> CompletedProcess[str]:
        conf = tmp_path / "clearml.conf"
        conf.write_text('api { api_server: "http://127.0.0.1:9", credentials { access_key: K, secret_key: S } }')
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CLEARML_CONFIG_FILE": str(conf), **env}
        return subprocess.run(
            [sys.executable, "-c", f"from hpc_agent.cli.{program} import main; main()", *words],
            env=environ,
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run


def assert_fails(done: CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr


@pytest.fixture
def served(run: Run, clearml_server: Any) -> Run:
    """As ``run`` with a server that answers."""
    return partial(run, **clearml_server.env)


@pytest.fixture
def task(served: Run, tmp_path: Path) -> str:
    """The id of a task on that server."""
    (tmp_path / "hello.py").write_text("print(1)")
    words = ("--project", "refusals", "--name", "hello", "--script", "hello.py", "--force-no-requirements", "--json")
    return str(json.loads(served(*words, program="task").stdout)["id"])


@pytest.mark.parametrize("root", ["/proc/none", "file"])
@pytest.mark.parametrize("mode", ["--once", "--foreground", "--detached"])
def test_a_daemon_names_the_root_that_it_cannot_write_to(served: Run, tmp_path: Path, root: str, mode: str) -> None:
    (tmp_path / "file").write_text("")
    queue = ("--queue", "refusals", "--create-queue")
    done = served("daemon", *queue, mode, CLEARML_AGENT__hpc__root=f'"{tmp_path / root}"')
    assert_fails(done, 2, f"hpc.root ({tmp_path / root}) is not writable")


def test_a_run_under_a_root_that_is_a_file(served: Run, tmp_path: Path, task: str) -> None:
    (tmp_path / "file").write_text("")
    done = served("execute", "--id", task, CLEARML_AGENT__hpc__root=f'"{tmp_path / "file"}"')
    assert_fails(done, 2, f"hpc.root is {tmp_path / 'file'}, which is not a folder")


def test_the_cache_of_a_root_that_is_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    root = {"CLEARML_AGENT__hpc__root": f'"{tmp_path / "file"}"'}
    assert_fails(run("cache", "list", **root), 1, str(tmp_path / "file"), "Not a directory", "hpc.root")
    logged = run("--debug", "cache", "list", **root)
    assert "Traceback" in logged.stderr and logged.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("identity", ["", "  "])
@pytest.mark.parametrize("command", ["execute", "build"])
def test_an_empty_id(run: Run, command: str, identity: str) -> None:
    assert_fails(run(command, "--id", identity), 2, "--id is empty")


def test_gpus_that_are_none(run: Run) -> None:
    assert_fails(run("execute", "--id", "x", "--gpus", "zz;rm"), 2, '--gpus "zz;rm" names no GPUs')


@pytest.mark.parametrize("command", ["daemon", "execute", "build"])
def test_the_help_says_what_a_password_on_the_command_line_costs(run: Run, command: str) -> None:
    text = " ".join(run(command, "--help").stdout.split())
    assert "`ps`" in text and "CLEARML_AGENT_GIT_PASS" in text


def test_unreachable_server_does_not_hide_local_errors(run: Run, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print(1)")
    done = run("--project", "p", "--name", "n", "--script", "train.py", "--queue", "none", program="task")
    assert_fails(done, 1, "give --packages or --requirements")


def test_missing_queue_and_missing_list_are_reported_together(served: Run, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print(1)")
    done = served("--project", "p", "--name", "n", "--script", "train.py", "--queue", "none", program="task")
    assert_fails(done, 1, 'there is no queue "none"', "; and ", "give --packages or --requirements")
