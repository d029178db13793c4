"""Notifications: what a webhook, a command and a mail get, and that none of them holds up a pass or a task."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site
from sbatch_bench import Person
from waiting import wait_until

from hpc_agent.domain.status import TaskStatus


class Hook:
    """A webhook that keeps what it gets. ``refusals``: how many requests it refuses first."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.refusals = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                refused = hook.refusals > 0
                hook.refusals -= refused
                if not refused:
                    hook.bodies.append(body)
                self.send_response(500 if refused else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not on the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/secret-path"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def events(self, task: str) -> list[str]:
        return [body["event"] for body in self.bodies if body["task"] == task]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


def notify(site: Site, **events: str) -> None:
    blocks = "\n".join(f"{event} {{ {lines} }}" for event, lines in events.items() if event != "waiting_after")
    after = f"waiting_after: {events['waiting_after']}" if "waiting_after" in events else ""
    site.configure(f"hpc {{ notify {{ {blocks}\n{after} }} }}")


@pytest.mark.slurm
def test_a_webhook_gets_the_events_of_a_task(site: Site, hook: Hook) -> None:
    hook.refusals = 1
    notify(site, **dict.fromkeys(("started", "completed", "failed", "waiting"), f'webhook: "{hook.url}"'))
    completes, fails = site.bare_task("print('fine')"), site.bare_task("raise ValueError('loss is nan')")
    site.daemon()
    assert site.wait_for_end(completes) is TaskStatus.COMPLETED
    assert site.wait_for_end(fails) is TaskStatus.FAILED
    wait_until("its end", lambda: hook.events(completes)[-1:] == ["task.completed"])
    wait_until("the other's end", lambda: hook.events(fails)[-1:] == ["task.failed"])
    # One that ends between two passes has started all the same.
    assert hook.events(completes) == ["task.started", "task.completed"]
    [sent] = [body for body in hook.bodies if body["event"] == "task.failed"]
    assert sent.items() >= {"task": fails, "name": "bare", "queue": site.queue, "waiting_seconds": 0}.items()
    assert sent["reason"] == site.reason(fails) and "ValueError: loss is nan (bare.py, line 1)" in sent["reason"]
    assert sent["text"].startswith(f'task "bare" ({fails}) failed on ') and sent["url"].endswith(f"{fails}/output/log")
    assert sent["job"].isdecimal() and sent["host"] and sent["cluster"] and sent["at"].endswith("Z")


@pytest.mark.slurm
def test_a_daemon_that_starts_again_tells_nothing_twice(site: Site, hook: Hook, tmp_path: Path) -> None:
    go = tmp_path / "go"
    notify(site, started=f'webhook: "{hook.url}"', completed=f'webhook: "{hook.url}"')
    task = site.bare_task(f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.1)")
    first = site.daemon()
    wait_until("its start", lambda: hook.events(task))
    first.terminate()
    first.wait(30)
    go.touch()
    site.wait_for_end(task)
    done = site.agent("daemon", "--queue", site.queue, "--once")
    assert done.returncode == 0
    assert hook.events(task) == ["task.started", "task.completed"]
    assert site.agent("daemon", "--queue", site.queue, "--once").returncode == 0
    assert hook.events(task) == ["task.started", "task.completed"]


@pytest.mark.slurm
def test_a_script_of_sbatch_is_reported_too(person: Person, hook: Hook) -> None:
    target = f'webhook: "{hook.url}"'
    notify(person.site, **dict.fromkeys(("started", "completed", "failed", "waiting"), target), waiting_after="1")
    person.script("#!/bin/bash\necho begun\nsleep 2\necho no such thing >&2\nexit 3\n")
    job = person.sbatch("--hold", "train.sh").job
    task = person.task(job)
    wait_until("the word", lambda: hook.events(task))
    person.site.slurm("scontrol", "release", job)
    wait_until("its end", lambda: hook.events(task)[-1:] == ["task.failed"])
    assert hook.events(task) == ["task.waiting", "task.started", "task.failed"]
    [sent] = [body for body in hook.bodies if body["event"] == "task.failed"]
    assert (sent["name"], sent["job"], sent["reason"]) == ("train.sh", job, person.site.reason(task))
    assert sent["host"].startswith("n") and sent["url"].endswith(f"{task}/output/log")
    [waits] = [body for body in hook.bodies if body["event"] == "task.waiting"]
    assert waits["waiting_seconds"] >= 1 and "has been waiting for 00:00:" in waits["text"]


@pytest.mark.slurm
def test_a_follower_that_starts_again_tells_nothing_twice_and_an_array_is_one_task(person: Person, hook: Hook) -> None:
    go = person.site.folder / "go"
    notify(person.site, **dict.fromkeys(("started", "completed"), f'webhook: "{hook.url}"'))
    person.script(f"#!/bin/bash\nuntil [ -e {go} ]; do sleep 0.1; done\n")
    array = person.task(person.sbatch("--array=1-2", "train.sh").job)
    single = person.task(person.sbatch("train.sh").job)
    wait_until("both starts", lambda: hook.events(array) and hook.events(single))
    follower = wait_until("the follower", person.follower)
    os.kill(follower, signal.SIGKILL)
    go.touch()
    wait_until("its death", lambda: not Path(f"/proc/{follower}").exists())

    def followed() -> bool:
        assert person.follow("--once").returncode == 0
        return not [path for path in (person.root / "sbatch").glob("[0-9a-f]*") if path.is_dir()]

    wait_until("all to be over", followed)
    assert hook.events(array) == hook.events(single) == ["task.started", "task.completed"]
    assert {body["task"] for body in hook.bodies} == {array, single}


def test_one_that_waits_too_long_is_reported_once(machine: Site, hook: Hook) -> None:
    notify(machine, waiting=f'webhook: "{hook.url}"', waiting_after="1")
    machine.bare_task("import time; time.sleep(300)")
    waits = machine.bare_task("print('later')")
    machine.daemon()
    wait_until("the word", lambda: hook.events(waits))
    [sent] = [body for body in hook.bodies if body["task"] == waits]
    assert sent["waiting_seconds"] >= 1
    assert re.search(rf"has been waiting in queue {machine.queue} for 00:0\d:\d\d", sent["text"])


def test_a_command_gets_json_and_a_mail_goes_through_sendmail(machine: Site, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sendmail", "tell"):
        (programs / name).write_text(
            f'#!/bin/sh\necho "$@" > {tmp_path}/{name}.arguments\ncat > {tmp_path}/{name}.got\n'
        )
        (programs / name).chmod(0o755)
    machine.env = {**machine.env, "PATH": f"{programs}:{machine.env['PATH']}"}
    notify(machine, failed='command: [tell, "--loud"], mail: "anna@example.org"')
    task = machine.bare_task("raise ValueError('loss is nan')")
    machine.daemon()
    machine.wait_for_end(task)
    wait_until("the mail", lambda: (tmp_path / "sendmail.got").exists() and (tmp_path / "sendmail.got").read_text())
    assert json.loads((tmp_path / "tell.got").read_text())["event"] == "task.failed"
    assert (tmp_path / "tell.arguments").read_text() == "--loud\n"
    mail = (tmp_path / "sendmail.got").read_text()
    assert mail.startswith(f'To: anna@example.org\nSubject: [hpc-agent] task "bare" ({task}) failed')
    assert "ValueError: loss is nan" in mail and f"queue: {machine.queue}" in mail
    assert (tmp_path / "sendmail.arguments").read_text() == "-i -t\n"


def test_targets_that_hang_or_fail_hold_up_neither_pass_nor_task(machine: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/secret-path"
        hangs = f'webhook: "{url}", command: [sleep, "600"], mail: "anna@example.org"'
        notify(machine, started=hangs, completed=hangs)
        machine.configure("hpc { local { max_jobs: 4 } }")
        daemon = machine.daemon()
        tasks = [machine.bare_task("print('fine')") for _ in range(8)]
        for task in tasks:
            assert machine.wait_for_end(task) is TaskStatus.COMPLETED
        wait_until("the refusal", lambda: "notification.not_delivered" in (machine.folder / "daemon.log").read_text())
        daemon.terminate()
        assert daemon.wait(15) == 0
    log = (machine.folder / "daemon.log").read_text()
    assert "secret-path" not in log
    configurations = list(machine.root.rglob("*.conf"))
    assert configurations and not [path for path in configurations if "secret-path" in path.read_text()]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('failed { webhook: "hooks.example.org" }', "webhook is not a URL, expected one that starts with https:// or"),
        ('failed { mail: "anna, ben" }', 'mail is "anna, ben", expected one address such as anna@example.org'),
        ('fails { mail: "anna" }', 'unknown key hpc.notify.fails; did you mean "failed"?'),
        ("failed { command: [] , webhok: x }", 'unknown key hpc.notify.failed.webhok; did you mean "webhook"?'),
        ("waiting_after: 0", "hpc.notify.waiting_after"),
    ],
)
def test_wrong_settings_are_a_sentence(machine: Site, lines: str, sentence: str) -> None:
    machine.configure(f"hpc {{ notify {{ {lines} }} }}")
    done = machine.agent("daemon", "--queue", machine.queue, "--once")
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr


def test_the_address_of_a_webhook_is_masked(machine: Site) -> None:
    notify(machine, failed='webhook: "https://hooks.example.org/T0/secret-path"')
    shown = machine.agent("config").stdout
    assert "hpc.notify.failed.webhook = " in shown and "secret-path" not in shown
