"""Commands with wrong input, broken outputs and names made to harm: a sentence, an exit code, and no traceback."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from waiting import HANG_S, contains, wait_until

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

NOBODYS = "f" * 32
ESCAPES = "\x1b]0;owned\x07\x1b[2J\nsecond line"


@dataclass(frozen=True)
class Terminal:
    """A machine without a cluster, and a person at it."""

    env: Mapping[str, str]
    client: Client
    folder: Path

    def run(self, *words: str, program: str = "main", **how: Any) -> subprocess.CompletedProcess[str]:
        env = {**self.env, **how.pop("env", {})}
        how = {"capture_output": True, **how}
        return subprocess.run(
            _argv(program, words), env=env, cwd=self.folder, text=True, timeout=HANG_S, check=False, **how
        )

    def show(self, *words: str) -> bytes:
        """All that a terminal gets to see."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            argv = _argv("main", words)
            os.execve(argv[0], argv, {**self.env, "TERM": "xterm"})
        shown = b""
        with suppress(OSError):  # its end
            while data := os.read(terminal, 65536):
                shown += data
        os.close(terminal)
        os.waitpid(pid, 0)
        return shown

    def task(self, name: str) -> TaskId:
        project = self.client.projects.find_or_create("odd")
        script = {"entry_point": "a.py", "diff": "print(1)", "requirements": {"pip": ""}}
        return self.client.tasks.create({"name": name, "type": "training", "project": project, "script": script})


def _argv(program: str, words: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", f"from hpc_agent.cli.{program} import main; main()", *words]


@pytest.fixture
def terminal(clearml_server: Any, tmp_path: Path) -> Terminal:
    conf = tmp_path / "clearml.conf"
    conf.write_text(f'include "{clearml_server.conf}"\nhpc {{ scheduler: local, root: "{tmp_path}/hpc" }}\n', "utf-8")
    # Of the tests' own environment only what programs need: no COLUMNS, no NO_COLOR.
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CLEARML_CONFIG_FILE": str(conf)}
    return Terminal(env, Client(load(conf, {}).settings.api), tmp_path)


WRONG = (
    ("why", NOBODYS, "no task has the id ffff"),
    ("logs", NOBODYS, "no task has the id ffff"),
    ("cancel", NOBODYS, "no task has the id ffff"),
    ("render --id", NOBODYS, "no task has the id ffff"),
    ("why", "0" * 40, "no task has the id 0000"),
    ("why", "x" * 5000, "no task has a name of 5000 characters"),
    ("why", "", "the task is empty"),
    ("why", "../../etc/passwd", 'no task has the id or name "../../etc/passwd"'),
    ("why", "12345_7", "no task here has a job 12345_7"),
    ("logs", "[", 'no task has the id or name "["'),
    ("jobs --watch", "nan", "'nan' is not a number"),
    ("jobs --watch", "inf", "inf is not in the range"),
    ("doctor --wait", "nan", "'nan' is not a number"),
    ("daemon --polling-interval", "nan", "'nan' is not a number"),
    ("jobs --ended", "99999w", '--ended is "99999w", expected a number with m, h, d or w'),
    ("jobs --ended", "0d", '--ended is "0d"'),
    ("efficiency --last", "99999w", '--last is "99999w"'),
    ("stats --last", "x", '--last is "x"'),
    ("jobs --queue", "nope", 'there is no queue "nope"'),
    ("jobs --state", "bogus", "'bogus' is none of running"),
    ("efficiency --by", "x", "expected one or more of queue, user, name"),
    ("init --dry-run --file", "/dev/zero", "/dev/zero is a device or a pipe, not a file"),
)


@pytest.mark.parametrize(("command", "value", "sentence"), WRONG, ids=[f"{c} {v[:12]}" for c, v, _ in WRONG])
def test_wrong_input_is_named_and_ends_with_2(terminal: Terminal, command: str, value: str, sentence: str) -> None:
    done = terminal.run(*command.split(), value)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_one_unknown_task_and_nothing_is_cancelled(terminal: Terminal) -> None:
    queue = terminal.client.queues.resolve("odd", create=True)
    task = terminal.task("to be cancelled")
    terminal.client.tasks.enqueue(task, queue)
    assert terminal.run("cancel", task, NOBODYS).returncode == 2
    assert terminal.client.tasks.get(task).status is TaskStatus.QUEUED
    assert terminal.run("cancel", task).returncode == 0
    assert terminal.client.tasks.get(task).status is TaskStatus.STOPPED


def test_a_name_does_not_cancel_the_task_of_another_user(terminal: Terminal) -> None:
    session = terminal.client.session
    other = session.call("auth.create_user", {"name": "other", "role": "admin"})["id"]
    keys = session.call("auth.create_credentials", {"user": other})["credentials"]
    env = {"CLEARML_API_ACCESS_KEY": keys["access_key"], "CLEARML_API_SECRET_KEY": keys["secret_key"]}
    task = terminal.task("train of the first user")
    terminal.client.tasks.enqueue(task, terminal.client.queues.resolve("odd", create=True))
    done = terminal.run("cancel", "train of the first user", env=env)
    assert done.returncode == 2
    assert f'"train of the first user" is {task}, which belongs to another user' in done.stderr
    assert terminal.client.tasks.get(task).status is TaskStatus.QUEUED
    assert terminal.run("cancel", "train of the first user").returncode == 0
    assert terminal.client.tasks.get(task).status is TaskStatus.STOPPED


@pytest.mark.parametrize("words", [("free",), ("init", "--dry-run"), ("doctor", "--jobs"), ("jobs",)])
def test_a_scheduler_that_is_not_on_path_is_said_to_be_missing(terminal: Terminal, words: Sequence[str]) -> None:
    env = {"PATH": str(terminal.folder), "CLEARML_AGENT__hpc__scheduler": "slurm"}
    done = terminal.run(*words, env=env)
    assert "load the site's module first" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_request_is_not_taken_for_none(terminal: Terminal) -> None:
    words = ("--project", "odd", "--name", "empty request", "--script", "a.py", "--num-gpus", "")
    done = terminal.run(*words, program="task")
    assert done.returncode == 2
    assert "Invalid value for '--num-gpus': it is empty" in done.stderr


def test_a_table_without_rows_says_where_to_look(terminal: Terminal) -> None:
    hint = "No jobs; no daemon serves a queue here: --queue NAME shows what waits in one\n"
    assert terminal.run("jobs").stdout == hint
    assert terminal.run("jobs", env={"CLEARML_AGENT__hpc__queues": "{ odd { } }"}).stdout == "No jobs\n"


def test_a_draft_is_followed_from_before_it_is_enqueued(terminal: Terminal) -> None:
    task, way = terminal.task("followed draft"), terminal.folder / "way"
    session = terminal.client.session
    with (
        way.open("wb") as stderr,
        subprocess.Popen(_argv("main", ["logs", "-f", task]), env=terminal.env, stderr=stderr) as child,
    ):
        wait_until("it to wait", way.read_text, contains("a draft: it starts when it is enqueued"))
        session.call("tasks.started", {"task": task})
        session.call("tasks.failed", {"task": task, "status_reason": "of its own accord"})
        assert child.wait(HANG_S) == 0
    assert way.read_text().splitlines()[-1].endswith(" failed: of its own accord")


# ---------------------------------------------------------------- outputs

PRINTING = (("jobs",), ("stats", "--json"), ("daemon", "--status"), ("config",))


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_an_output_that_takes_nothing_is_said_once(terminal: Terminal, words: Sequence[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = terminal.run(*words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output could not be written: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_a_task_is_not_lost_with_the_output_that_names_it(terminal: Terminal) -> None:
    (terminal.folder / "a.py").write_text("print(1)", "utf-8")
    words = ("--project", "odd", "--name", "unprinted", "--script", "a.py", "--force-no-requirements")
    with Path("/dev/full").open("wb") as full:
        done = terminal.run(*words, program="task", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert f"task {terminal.client.tasks.resolve('unprinted')} was created" in done.stderr


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_reader_that_has_left_is_not_written_about(terminal: Terminal, words: Sequence[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = terminal.run(*words, capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
@pytest.mark.parametrize("words", ["jobs", "init --dry-run --queue a", "daemon --status"])
def test_closed_standard_streams_are_survived(terminal: Terminal, words: str, closed: str) -> None:
    shell = f'exec "$0" -m hpc_agent {words} {closed}'
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable],
        env=terminal.env,
        cwd=terminal.folder,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


JSON = ("jobs", "why TASK", "render --id TASK", "efficiency", "stats", "doctor", "free", "init --dry-run --queue a")


@pytest.mark.parametrize("words", JSON)
@pytest.mark.parametrize("secret", ["right", "wrong"])
def test_json_is_one_document_or_nothing_with_an_error(terminal: Terminal, words: str, secret: str) -> None:
    task = terminal.task("for json")
    terminal.client.tasks.enqueue(task, terminal.client.queues.resolve("odd", create=True))
    env = {"CLEARML_API_SECRET_KEY": "wrong"} if secret == "wrong" else {}
    done = terminal.run(*words.replace("TASK", task).split(), "--json", env=env)
    assert "Traceback" not in done.stderr
    if done.stdout:
        json.loads(done.stdout)
    else:
        assert done.returncode != 0
        assert done.stderr.startswith("error: ")
    terminal.run("cancel", task)


# ---------------------------------------------------------------- names and answers of others


@pytest.mark.parametrize(
    "words",
    ["jobs --queue QUEUE", "why TASK", "why DIED", "logs TASK", "render --id TASK", "jobs --queue none", "cancel DIED",
     "daemon --status --queue QUEUE", "doctor --queue QUEUE", "why NAME"],
)  # fmt: skip
def test_no_escape_of_a_name_reaches_the_terminal(terminal: Terminal, words: str) -> None:
    name = f"odd {ESCAPES}"
    task, died, queue = terminal.task(name), terminal.task(name), terminal.client.queues.resolve(name, create=True)
    terminal.client.tasks.enqueue(task, queue)
    session = terminal.client.session
    session.call("tasks.started", {"task": died})
    session.call("tasks.failed", {"task": died, "status_reason": ESCAPES, "status_message": ESCAPES})
    values = {"TASK": task, "DIED": died, "QUEUE": name, "NAME": name}
    shown = terminal.show(*(values.get(word, word) for word in words.split()))
    session.call("tasks.dequeue", {"task": task})
    assert b"Traceback" not in shown
    assert b"\x1b]0;" not in shown
    assert b"\x1b[2J" not in shown


def test_no_password_of_an_address_is_shown(terminal: Terminal) -> None:
    done = terminal.run("doctor", "--repository", "https://user:hunter22@127.0.0.1:9/x.git")
    assert "git ls-remote https://127.0.0.1:9/x.git" in done.stdout
    assert "hunter22" not in done.stdout + done.stderr
