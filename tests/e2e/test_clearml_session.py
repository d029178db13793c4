"""ClearML's own ``clearml-session`` through a queue that the daemon serves, against the embedded server.

The session's own script is not run: as root it installs an SSH server, changes its configuration and the machine's
password, and as another user it downloads one. A script that says it serves, as that one does, takes its place; so the
ssh connection itself is what remains untested.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from e2e_site import Site
from waiting import contains, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.peers

SERVES = """
import time
from clearml import Task
task = Task.init()
asked = task._get_runtime_properties()
print("port", asked["internal_tcp_port_request"], "password", len(asked["_ssh_password"]), "user", asked["_user_key"])
print("jupyter", task.get_parameter("interactive_session/jupyterlab"))
task.set_parameter("properties/internal_ssh_port", "1")
print("begun", flush=True)
time.sleep(300)
"""


@pytest.fixture
def box(machine: Site, peers: Path) -> Site:
    """A machine without Slurm, and the programs of ClearML."""
    return replace(machine, peers=peers)


class Session:
    """A running ``clearml-session`` and what it has printed."""

    def __init__(self, site: Site, *flags: str) -> None:
        self._log = site.folder / "clearml-session.log"
        plain = ("--yes", "--jupyter-lab", "false", "--vscode-server", "false", "--skip-docker-network")
        argv = [str(site.peers / "clearml-session"), "--queue", site.queue, *plain, *flags]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, env=site.env, cwd=site.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def waits(self) -> TaskId:
        """The task that it has made and waits for."""
        wait_until("the session to be made", self.said, contains("Waiting for remote machine allocation"))
        made = re.search(r"New session created \[id=(\w+)\]", self.said())
        assert made, self.said()
        return TaskId(made[1])

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    started: list[Session] = []
    yield started
    for session in started:
        session.end()


def command(site: Site, *argv: str) -> str:
    """What another ``clearml-session`` prints."""
    ended = subprocess.run(
        [site.peers / "clearml-session", *argv],
        env=site.env,
        cwd=site.folder,
        stdin=subprocess.DEVNULL,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_new_session_is_a_task_in_the_queue(box: Site, sessions: list[Session]) -> None:
    sessions.append(Session(box, "--project", "sessions", "--session-name", "mine", "--packages", "six"))
    task = box.client.tasks.get_object(sessions[0].waits())
    assert (task["status"], task["type"], task["name"]) == ("queued", "application", "mine")
    assert task["system_tags"] == ["interactive"]
    assert task["script"]["requirements"]["pip"].splitlines() == ["clearml>=1.1.5", "six"]
    # An edit of the requirements alone, by the session's command, leaves the rest of the script.
    assert "def setup_ssh_server" in task["script"]["diff"]
    assert task["runtime"]["internal_tcp_port_request"] and len(task["runtime"]["_ssh_password"]) == 64
    assert "No interactive sessions found" in command(box, "list")


def test_a_session_is_found_attached_to_and_shut_down(box: Site, sessions: list[Session]) -> None:
    box.daemon()
    base = box.bare_task(SERVES, enqueue=False, requirements={"pip": "clearml"})
    sessions.append(Session(box, "--base-task-id", base, "--session-name", "mine"))
    task = sessions[0].waits()
    wait_until("the session to be ready", sessions[0].said, contains("Remote machine is ready"))
    sessions[0].end()
    # The console goes out less often than the properties by which a session says that it is ready.
    wait_until("the console of the session", lambda: box.console(task), contains("begun"))
    console = box.console(task)
    assert re.search(r"port \d+ password 64 user \w+", console), console
    assert "jupyter False" in console
    assert f"id={task} name='mine'" in command(box, "list")
    assert "status=in_progress" in command(box, "info", "--id", task)
    sessions.append(Session(box, "--attach", task))
    wait_until("it to connect", sessions[1].said, contains("Starting SSH tunnel to"))
    sessions[1].end()
    assert f"Session #{task} shutdown" in command(box, "--yes", "shutdown", "--id", task)
    assert box.wait_for_end(task) is TaskStatus.STOPPED
    assert "No interactive sessions found" in command(box, "list")
