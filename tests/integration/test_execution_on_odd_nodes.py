"""A task on a node whose locale, file server or output are not what its author had in mind."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from capabilities import missing
from faulty_share import Share
from waiting import contains, equals, wait_until

from hpc_agent.api.client import Client
from hpc_agent.clock import SYSTEM
from hpc_agent.config.load import load
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

LONG = 90.0


class Bench:
    """One queue of a real server, and the command line of an agent."""

    def __init__(self, server: Any, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.client = Client(load(server.conf, {}).settings.api)
        self.queue = self.client.queues.resolve(f"q-{uuid.uuid4().hex[:8]}", create=True)

    def enqueue(self, **script: object) -> TaskId:
        fields = {"entry_point": "run.py", "working_dir": ".", "requirements": {"pip": ""}, **script}
        task = self.client.tasks.create({"name": "odd", "type": "training", "script": fields})
        self.client.tasks.enqueue(task, self.queue)
        return task

    def start(self, task: TaskId, root: Path | None = None, env: Mapping[str, str] = {}) -> subprocess.Popen[str]:
        conf = self.folder / "odd.conf"
        hpc = f'root: "{root or self.folder}", cache_dir: "{self.folder}/cache", scratch_dir: "{self.folder}/scratch"'
        text = f'include "{self.server.conf}"\nhpc {{ {hpc}, term_grace: 2 }}\n'
        conf.write_text(text, encoding="utf-8")
        own = {name: value for name, value in self.server.env.items() if not name.startswith(("LC_", "LANG"))}
        return subprocess.Popen(
            [sys.executable, "-m", "hpc_agent", "execute", "--id", task, "--require-queue"],
            env={**own, "CLEARML_CONFIG_FILE": str(conf), "HOME": str(self.folder), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def run(self, task: TaskId, env: Mapping[str, str] = {}) -> str:
        """To its end; returns what the agent printed."""
        with self.start(task, env=env) as agent:
            said, _ = agent.communicate(timeout=LONG)
        return said

    def status(self, task: TaskId) -> TaskStatus:
        return self.client.tasks.get_states([task])[task].status

    def reason(self, task: TaskId) -> str:
        return self.client.tasks.get_states([task])[task].reason

    def console(self, task: TaskId) -> list[str]:
        return "".join(event["msg"] for event in self.client.events.console_after(task, 0)).splitlines()


@pytest.fixture
def bench(clearml_server: Any, tmp_path: Path) -> Bench:
    return Bench(clearml_server, tmp_path)


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def latin1(folder: Path) -> Mapping[str, str]:
    """A real German locale of the nineties."""
    argv = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE")]
    if subprocess.run(argv, capture_output=True, check=False).returncode > 1:
        missing("locales", "localedef has no de_DE: Debian's package locales")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE"}


@pytest.mark.parametrize("locale", [pytest.param("latin-1", marks=pytest.mark.locales), "ascii"])
def test_a_script_with_umlauts_runs_in_any_locale(locale: str, bench: Bench, tmp_path: Path) -> None:
    text = 'print("fünf €")\nopen("größe.txt", "w").write("ä€")\nprint(len(open("größe.txt").read()))\n'
    task = bench.enqueue(diff=text)
    said = bench.run(task, ASCII if locale == "ascii" else latin1(tmp_path))
    assert bench.status(task) is TaskStatus.COMPLETED, said
    assert bench.console(task)[-3:] == ["fünf €", "2", "Process completed successfully"]


@pytest.mark.parametrize("locale", [pytest.param("latin-1", marks=pytest.mark.locales), "ascii"])
def test_a_repository_with_umlauts_in_its_names_runs_in_any_locale(locale: str, bench: Bench, tmp_path: Path) -> None:
    repository = tmp_path / "müsli"
    (repository / "küche").mkdir(parents=True)
    (repository / "küche" / "run.py").write_text("print('alt')\n", encoding="utf-8")
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-qm", "ä"]):
        subprocess.run(["git", "-C", str(repository), *words], check=True, capture_output=True)
    diff = (
        "diff --git a/küche/run.py b/küche/run.py\n--- a/küche/run.py\n+++ b/küche/run.py\n"
        "@@ -1 +1 @@\n-print('alt')\n+print('neu €')\n"
    )
    task = bench.enqueue(repository=str(repository), branch="main", working_dir="küche", diff=diff)
    said = bench.run(task, ASCII if locale == "ascii" else latin1(tmp_path))
    assert bench.status(task) is TaskStatus.COMPLETED, said
    assert "neu €" in bench.console(task)


def test_the_last_line_of_the_console_is_a_line(bench: Bench) -> None:
    task = bench.enqueue(diff='print("loss=0.5", end="")\n')
    bench.run(task)
    assert bench.console(task)[-2:] == ["loss=0.5", "Process completed successfully"]


@pytest.mark.fuse
def test_a_training_survives_a_file_server_that_was_away_for_longer_than_its_lease(bench: Bench, share: Share) -> None:
    go = bench.folder / "go"
    text = (
        f"import os, time\nprint('before')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)\nprint('after')\n"
    )
    task = bench.enqueue(diff=text)
    with bench.start(task, share.path) as agent:
        wait_until("its first line", lambda: bench.console(task), contains("before"))
        share.stall()
        SYSTEM.sleep(0.5)
        share.lose_what_is_open()
        share.answer_again()
        go.touch()
        said, _ = agent.communicate(timeout=LONG)
    assert bench.status(task) is TaskStatus.COMPLETED, said
    assert bench.console(task)[-3:] == ["before", "after", "Process completed successfully"]


@pytest.mark.fuse
def test_an_abort_waits_for_no_file_server(bench: Bench, share: Share) -> None:
    signalled = bench.folder / "signalled"
    text = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(signalled)!r}).touch(), sys.exit(1)))\n"
        "print('running')\ntime.sleep(600)\n"
    )
    task = bench.enqueue(diff=text)
    with bench.start(task, share.path) as agent:
        wait_until("its first line", lambda: bench.console(task), contains("running"))
        share.stall()
        bench.client.session.call("tasks.stop", {"task": task})
        wait_until("the script to be signalled", signalled.exists)
        wait_until("it to be stopped", lambda: bench.status(task), equals(TaskStatus.STOPPED))
        share.answer_again()
        agent.communicate(timeout=LONG)


@pytest.mark.fuse
def test_a_failure_together_with_a_file_system_that_failed_names_it(bench: Bench, share: Share) -> None:
    go = bench.folder / "go"
    text = f"import os, sys, time\nprint('x')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)\nsys.exit(3)\n"
    task = bench.enqueue(diff=text)
    share.fill_up("console.log")
    with bench.start(task, share.path) as agent:
        wait_until("a write to be refused", share.has_refused)
        share.make_room()
        go.touch()
        said, _ = agent.communicate(timeout=LONG)
    assert "exit code 3; the file system of its console failed" in bench.reason(task), said
    assert "No space left on device" in bench.reason(task)
    assert bench.console(task)[-2] == "x"
