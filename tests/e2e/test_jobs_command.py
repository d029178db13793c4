"""``hpc-agent jobs`` on real Slurm: tasks from queues and people's own scripts in one table."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from e2e_site import UNTIL_GO, Site
from sbatch_bench import Person
from waiting import HANG_S, wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.slurm


def jobs(site: Site, *arguments: str) -> list[dict[str, Any]]:
    answer = site.agent("jobs", "--json", *arguments)
    assert answer.returncode == 0, answer.stderr
    rows: list[dict[str, Any]] = json.loads(answer.stdout)["jobs"]
    return rows


def states(site: Site, *arguments: str) -> dict[str, str]:
    return {row["task"]: row["state"] for row in jobs(site, *arguments)}


def test_a_task_is_shown_from_its_queue_to_its_end(site: Site) -> None:
    go = site.folder / "go"
    task = site.bare_task(UNTIL_GO.format(go=str(go)))
    later = site.bare_task("print(1)")
    site.properties(later, num_gpus="4", partition="none")
    [first, second] = jobs(site, "--queue", site.queue)
    assert (first["task"], first["state"], first["queue"]) == (task, "queued", site.queue)
    assert (first["why"], second["why"]) == ("number 1 of 2 in its queue", "number 2 of 2 in its queue")
    assert (first["job"], first["name"], first["kind"]) == ("", "bare", "queue")
    site.daemon()
    job = site.begun(task)
    [row] = [row for row in jobs(site, "--queue", site.queue) if row["task"] == task]
    assert (row["state"], row["job"], row["limit_seconds"]) == ("running", job, 600)
    assert row["nodes"].startswith("n") and row["used_seconds"] >= 0 and row["partition"] == "main"
    plain = site.agent("jobs", "--queue", site.queue, COLUMNS="200").stdout.splitlines()
    assert plain[0].split()[:5] == ["TASK", "NAME", "QUEUE", "JOB", "STATE"]
    assert plain[1].split()[:5] == [task[:8], "bare", site.queue, job, "running"]
    go.touch()
    site.wait_for_end(task)
    wait_until("it to be left out", lambda: task not in states(site, "--queue", site.queue))
    [ended] = jobs(site, "--queue", site.queue, "--state", "completed")
    assert (ended["task"], ended["state"]) == (task, "completed")


def test_a_job_that_waits_shows_why_and_since_when(site: Site) -> None:
    task = site.bare_task("print(1)")
    site.slurm("scontrol", "update", "partitionname=main", "state=down")
    try:
        site.daemon()
        wait_until("it to wait", lambda: states(site, "--queue", site.queue).get(task) == "pending")
        [row] = jobs(site, "--queue", site.queue, "--state", "pending,running")
        assert row["reason"] == "PartitionDown"
        assert row["why"] == "PartitionDown: its partition is closed: ask the administrators for how long"
        assert jobs(site, "--queue", site.queue, "--state", "running") == []
        assert jobs(site, "--queue", site.queue, "--name", "BAR")[0]["task"] == task
        assert jobs(site, "--queue", site.queue, "--name", "other") == []
        narrow = site.agent("jobs", "--queue", site.queue, COLUMNS="60").stdout.splitlines()
        assert all(len(line) <= 60 for line in narrow), narrow
        assert "PartitionDown" in narrow[1] and site.queue not in narrow[1]
    finally:
        site.slurm("scontrol", "update", "partitionname=main", "state=up")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED


def test_jobs_of_sbatch_are_listed_with_tasks_from_queues(person: Person) -> None:
    person.script("#!/bin/bash\nsleep 300\n")
    job = person.sbatch("--array=1-3", "-J", "mine", "train.sh").job
    task = person.task(job)

    def row() -> dict[str, Any]:
        answer = person.site.agent("jobs", "--json", CLEARML_AGENT__hpc__root=f'"{person.root}"')
        return next((row for row in json.loads(answer.stdout)["jobs"] if row["task"] == task), {})

    wait_until("its elements to run", row, lambda row: row.get("state") == "running")
    found = row()
    assert (found["kind"], found["job"], found["name"]) == ("script", job, "mine")
    assert found["why"].endswith("running"), found


def test_a_terminal_shows_the_table_again_in_place_until_ctrl_c(site: Site) -> None:
    go = site.folder / "go"
    site.daemon()
    task = site.bare_task(UNTIL_GO.format(go=str(go)))
    site.begun(task)
    with watching(site, rows=20, columns=200) as (child, terminal):
        wait_until("its line", terminal.last_frame, lambda frame: task[:8] in frame and "running" in frame)
        assert "(every 2 s, Ctrl-C ends)" in terminal.last_frame()
        for variant, value in (("gpu_0_utilization", 80), ("gpu_1_utilization", 90), ("cpu_usage", 37)):
            metric = ":monitor:machine" if variant == "cpu_usage" else ":monitor:gpu"
            scalar = {"metric": metric, "variant": variant, "value": value, "iter": 0}
            site.client.session.call("events.add", {"type": "training_stats_scalar", "task": task, **scalar})
        wait_until("what it uses", terminal.last_frame, lambda frame: re.search(r" 85% +37%", frame))
        go.touch()
        wait_until("its end", terminal.last_frame, lambda frame: "No jobs" in frame and task[:8] not in frame)
        terminal.type("\x03")
        assert child.wait(HANG_S) == 0
    assert terminal.text.count("\x1b[H") >= 3 and "Traceback" not in terminal.text


@dataclass
class Terminal:
    """What a program draws on it, and its keyboard."""

    descriptor: int
    text: str = ""

    def read(self) -> None:
        with suppress(OSError):  # the program has ended
            while piece := os.read(self.descriptor, 65536):
                self.text += piece.decode()

    def last_frame(self) -> str:
        """The last one that is complete, without colours."""
        return re.sub(r"\x1b\[[0-9;]*[mKJ]", "", ["", *self.text.split("\x1b[H")][-2])

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())


@contextmanager
def watching(site: Site, *, rows: int, columns: int) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """``hpc-agent jobs --watch`` on a terminal of this size, whose Ctrl-C it gets as a signal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    argv = [sys.executable, "-c", OWN_TERMINAL, "jobs", "--watch", "2", "--queue", site.queue]
    env = {**site.env, "TERM": "xterm"}
    child = subprocess.Popen(argv, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    terminal = Terminal(master)
    reader = threading.Thread(target=terminal.read)
    reader.start()
    try:
        yield child, terminal
    finally:
        child.kill()
        child.wait()
        reader.join()
        os.close(master)


OWN_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from hpc_agent.cli.main import main
main()
"""


def test_a_table_is_one_request_to_slurm_however_many_jobs_it_has(person: Person) -> None:
    person.script("#!/bin/bash\nsleep 300\n")
    tasks = {person.task(person.sbatch("train.sh").job) for _ in range(3)}
    own: dict[str, Any] = {"CLEARML_AGENT__hpc__root": f'"{person.root}"'}
    site = person.site
    shown = site.agent("jobs", "--json", **own)
    assert {row["task"] for row in json.loads(shown.stdout)["jobs"]} >= tasks
    counts = {row["program"]: row for row in json.loads(site.agent("stats", "--json", **own).stdout)}
    assert counts["jobs"]["scheduler"] == {"squeue": 1}, counts


def test_scripts_that_have_ended_are_listed_on_demand(person: Person) -> None:
    person.script("#!/bin/bash\nexit 3\n")
    job = person.sbatch("-J", "mine", "train.sh").job
    status, reason = person.wait_for_end(job)

    def rows(*arguments: str, **env: Any) -> list[dict[str, Any]]:
        env["CLEARML_AGENT__hpc__root"] = f'"{person.root}"'
        answer = person.site.agent("jobs", "--json", *arguments, **env)
        assert answer.returncode == 0, answer.stderr
        return [row for row in json.loads(answer.stdout)["jobs"] if row["kind"] == "script"]

    wait_until("its records to go", lambda: not person.folder(job).exists())
    assert rows() == []
    [row] = rows("--ended", "1h")
    assert (row["task"], row["job"], row["name"]) == (person.task(job), job, "mine")
    assert (row["state"], row["why"]) == (status.value, reason)
    assert rows("--state", "failed") == [row] and rows("--state", "completed") == []
    assert rows("--ended", "1h", CLEARML_API_HOST="http://127.0.0.1:9") == []
    person.site.client.tasks.delete(person.task(job))
    assert rows("--ended", "1h") == []


def test_what_does_not_answer_is_said_and_the_rest_is_shown(site: Site) -> None:
    task = site.bare_task("print(1)")
    broken = site.folder / "bin"
    broken.mkdir()
    (broken / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    (broken / "squeue").chmod(0o755)
    answer = site.agent("jobs", "--queue", site.queue, PATH=f"{broken}:{site.env['PATH']}")
    assert answer.returncode == 0 and task[:8] in answer.stdout
    assert "The scheduler did not answer: states of jobs are missing" in answer.stderr
    away = site.agent("jobs", CLEARML_API_HOST="http://127.0.0.1:9", timeout=200)
    assert away.returncode == 0 and "The server did not answer" in away.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--state", "sleeping"), "'sleeping' is none of running,"),
        (("--queue", "no-such-queue"), 'there is no queue "no-such-queue"'),
        (("--ended", "soon"), '--ended is "soon", expected a number with m, h, d or w'),
        (("--watch", "0.1"), "0.1 is not in the range 2.0<=x"),
        (("--watch", "--json"), "--json prints one object and --watch never ends: give one of the two"),
    ],
)
def test_wrong_input_is_a_sentence(site: Site, arguments: tuple[str, ...], sentence: str) -> None:
    answer = site.agent("jobs", *arguments)
    assert answer.returncode == 2
    assert sentence in answer.stderr
