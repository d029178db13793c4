"""``hpc-task --follow``: the task's way, its console and its exit code, at the terminal of the person who made it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from e2e_site import UNTIL_GO, Site
from local_clone import Clone
from waiting import HANG_S, contains, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm]

ENDS = "import sys\nprint('begun', flush=True)\nsys.exit({code})\n"
SLEEPS = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"
WITHOUT = """
import os, signal, sys
for name in ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog", "ctypes", "psutil", "readline"):
    sys.modules[name] = None
for name in (
    "memfd_create", "sched_getaffinity", "waitid", "pipe2", "posix_fadvise", "getxattr", "fork", "setsid", "killpg",
    "getpgid", "getuid", "geteuid", "getgid", "getgroups", "pread", "fchmod", "chown", "mkfifo", "uname",
):
    delattr(os, name)
for name in ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
"""
"""What Windows or macOS lack. What Python's own modules cannot do without on Linux is left."""


def argv(site: Site, text: str, *words: str, before: str = "") -> list[str]:
    (site.folder / "work.py").write_text(text)
    first = ["--project", "e2e", "--name", "work", "--script", "work.py", "--skip-task-init", "--force-no-requirements"]
    return [sys.executable, "-c", f"{before}\nfrom hpc_agent.cli.task import main\nmain()", *first, *words]


def hpc_task(site: Site, text: str, *words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv(site, text, *words, before=before),
        env=site.env,
        cwd=site.folder,
        text=True,
        capture_output=True,
        timeout=240,
        check=False,
    )


@contextmanager
def following(site: Site, text: str) -> Iterator[subprocess.Popen[str]]:
    """``hpc-task --follow`` while it runs; its stderr is the file ``way``."""
    with (
        (site.folder / "way").open("w") as way,
        subprocess.Popen(
            argv(site, text, "--queue", site.queue, "--follow"),
            env=site.env,
            cwd=site.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=way,
        ) as child,
    ):
        try:
            yield child
        finally:
            child.kill()


def lines_until(child: subprocess.Popen[str], line: str) -> list[str]:
    assert child.stdout is not None
    lines = []
    for text in child.stdout:
        lines.append(text.rstrip("\n"))
        if lines[-1] == line:
            return lines
    raise AssertionError(f"it ended without {line!r}: {lines}")


def task_in(lines: list[str]) -> TaskId:
    match = re.match(r"task (\w+) ", lines[0])
    assert match, lines
    return TaskId(match[1])


@pytest.mark.parametrize("code", [0, 3])
def test_it_shows_way_and_console_and_ends_with_the_tasks_exit_code(site: Site, code: int) -> None:
    site.daemon()
    go, stderr = site.folder / "go", site.folder / "way"
    with following(site, f"{UNTIL_GO.format(go=str(go))}\n{ENDS.format(code=code)}") as child:
        # A program that starts and ends between two looks is never seen to run.
        wait_until("it to run", stderr.read_text, contains("running"))
        go.touch()
        assert child.stdout is not None
        assert "begun" in child.stdout.read().splitlines()
        assert child.wait(HANG_S) == code
    way = [line.partition(" ")[2] for line in stderr.read_text().splitlines()]
    assert way[0].startswith("waiting")
    assert any(re.match(r"running( on \S+:slurm:\d+)?$", line) for line in way)
    end = "completed: worker execution done" if code == 0 else "failed: worker execution exit code 3"
    assert way[-1] == end


def test_ctrl_c_leaves_the_task_running_and_tells_how_to_cancel_it(site: Site) -> None:
    site.daemon()
    with following(site, SLEEPS) as child:
        task = task_in(lines_until(child, "begun"))
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    last = (site.folder / "way").read_text().splitlines()[-1]
    assert "the task goes on; " in last and f"{task}/output/log" in last
    assert site.status(task) is TaskStatus.IN_PROGRESS
    site.client.session.call("tasks.stop", {"task": task})
    assert site.wait_for_end(task) is TaskStatus.STOPPED


def test_an_abort_ends_it_with_1(site: Site) -> None:
    site.daemon()
    with following(site, SLEEPS) as child:
        task = task_in(lines_until(child, "begun"))
        site.client.session.call("tasks.stop", {"task": task})
        assert child.wait(120) == 1
    assert (site.folder / "way").read_text().splitlines()[-1].endswith("stopped: aborted by its user")


def test_a_task_that_is_taken_off_its_queue_is_not_waited_for(site: Site) -> None:
    with following(site, SLEEPS) as child:
        wait_until("it to wait", lambda: "waiting" in (site.folder / "way").read_text())
        assert child.stdout is not None
        task = task_in([child.stdout.readline()])
        site.client.tasks.dequeue(task)
        assert child.wait(60) == 1
    assert "it is a draft now" in (site.folder / "way").read_text()


def test_it_needs_a_queue(site: Site) -> None:
    done = hpc_task(site, SLEEPS, "--follow")
    assert done.returncode == 2
    assert done.stderr == "error: --follow shows how a task runs: give --queue, a draft does not run\n"


def test_nothing_on_its_path_is_linux_only(site: Site) -> None:
    """The whole command, from a git checkout too, without the modules and functions that other systems lack."""
    clone = Clone.make(site.folder)
    clone.write("train.py", "import requests\nprint('as committed')\n")
    clone.git("commit", "--quiet", "--all", "-m", "two")
    clone.git("push", "--quiet")
    clone.write("train.py", "import sys\nprint('as changed', flush=True)\nsys.exit(3)\n")
    site.daemon()
    resources = ("--num-cpus", "1", "--time-limit", "5")
    folder = ("--folder", str(clone.root), "--script", "train.py")
    done = hpc_task(site, "", *folder, *resources, "--queue", site.queue, "--follow", before=WITHOUT)
    assert done.returncode == 3, done.stderr
    assert "as changed" in done.stdout.splitlines()


def test_no_flag_of_it_imports_what_is_linux_only(site: Site) -> None:
    done = hpc_task(
        site, SLEEPS, before=f"{WITHOUT}\nimport hpc_agent.drafts.offline_import, hpc_agent.cli.console_display"
    )
    assert done.returncode == 0, done.stderr
