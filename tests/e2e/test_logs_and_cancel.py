"""``hpc-agent logs`` and ``hpc-agent cancel`` on real Slurm."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from e2e_site import UNTIL_GO, Site
from sbatch_bench import Person
from waiting import HANG_S, contains, empty, wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.slurm

COUNTS = "for number in range(250): print('line', number, flush=True)\n"


@contextmanager
def following(site: Site, *words: str) -> Iterator[subprocess.Popen[str]]:
    """``hpc-agent logs -f``, ended with the test."""
    with (site.folder / "logs.out").open("w") as out, (site.folder / "logs.err").open("w") as err:
        child = subprocess.Popen(
            [sys.executable, "-m", "hpc_agent", "logs", "-f", *words],
            env=site.env,
            cwd=site.folder,
            stdout=out,
            stderr=err,
            text=True,
        )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def test_a_console_is_printed_whole_or_its_end(site: Site) -> None:
    task = site.bare_task(COUNTS)
    nothing = site.agent("logs", task[:8])
    assert (nothing.returncode, nothing.stdout) == (0, "") and "has printed nothing yet" in nothing.stderr
    site.daemon()
    site.wait_for_end(task)
    whole = site.agent("logs", task[:8]).stdout.splitlines()
    assert [line for line in whole if line.startswith("line ")] == [f"line {number}" for number in range(250)]
    assert site.agent("logs", task, "-n", "3").stdout.splitlines() == whole[-3:]
    assert site.agent("logs", task, "-n", "0").stdout == ""
    assert (
        "task.ended" in site.agent("logs", "--job", task).stdout or "exit" in site.agent("logs", "--job", task).stdout
    )


def test_follow_tells_why_it_waits_prints_what_comes_and_ends_with_the_task(site: Site) -> None:
    go = site.folder / "go"
    task = site.bare_task(UNTIL_GO.format(go=str(go)))
    site.slurm("scontrol", "update", "partitionname=main", "state=down")
    out, err = site.folder / "logs.out", site.folder / "logs.err"
    try:
        site.daemon()
        with following(site, task[:8]) as child:
            wait_until("why it waits", err.read_text, contains("is waiting (PartitionDown)"))
            site.slurm("scontrol", "update", "partitionname=main", "state=up")
            wait_until("its first line", out.read_text, contains("begun"))
            assert child.poll() is None
            go.touch()
            assert child.wait(HANG_S) == 0
    finally:
        site.slurm("scontrol", "update", "partitionname=main", "state=up")
    lines = out.read_text().splitlines()
    assert [lines.count("begun"), lines.count("over")] == [1, 1]
    assert "completed: worker execution done" in err.read_text().splitlines()[-1]


def test_ctrl_c_leaves_the_task_running(site: Site) -> None:
    task = site.bare_task(UNTIL_GO.format(go=str(site.folder / "go")))
    site.daemon()
    site.begun(task)
    with following(site, task) as child:
        wait_until("its first line", (site.folder / "logs.out").read_text, contains("begun"))
        child.send_signal(signal.SIGINT)
        assert child.wait(HANG_S) == 130
    assert f"the task goes on; `hpc-agent cancel {task[:8]}` ends it" in (site.folder / "logs.err").read_text()
    assert site.status(task) is TaskStatus.IN_PROGRESS
    (site.folder / "go").touch()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED


def test_a_queued_a_waiting_and_a_running_task_are_cancelled(site: Site) -> None:
    running = site.bare_task(UNTIL_GO.format(go=str(site.folder / "never")))
    daemon = site.daemon()
    job = site.begun(running)
    site.slurm("scontrol", "update", "partitionname=main", "state=down")
    try:
        waiting = site.bare_task("print(1)")
        wait_until("its job", lambda: site.jobs(waiting))
        [waits] = site.jobs(waiting)
        # A daemon that looks just then cancels the waiting job itself.
        daemon.terminate()
        daemon.wait(HANG_S)
        answer = site.agent("cancel", waits, job, waits)
        assert answer.returncode == 0, answer.stderr
        first, second = answer.stdout.splitlines()
        assert first == (
            f"bare ({waiting[:8]}) was taken off its queue and is stopped; its job {waits}, which waited, was cancelled"
        )
        assert second.startswith(f"bare ({running[:8]}) was asked to end: its program gets SIGTERM, and SIGKILL after ")
        assert site.status(waiting) is TaskStatus.STOPPED
        assert site.wait_for_end(running) is TaskStatus.STOPPED
        wait_until("no job of theirs", lambda: site.jobs(waiting) + site.jobs(running), empty)
    finally:
        site.slurm("scontrol", "update", "partitionname=main", "state=up")
    assert site.agent("cancel", running).stdout == f"bare ({running[:8]}) had ended before: stopped\n"


def test_a_word_that_means_no_task_cancels_nothing(site: Site) -> None:
    task = site.bare_task("print(1)")
    answer = site.agent("cancel", task, "no-such-task")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert 'no task has the id or name "no-such-task"' in answer.stderr
    assert site.status(task) is TaskStatus.QUEUED
    assert site.agent("cancel").returncode == 2


def test_the_job_of_a_script_is_cancelled_with_its_task(person: Person) -> None:
    person.script("#!/bin/bash\necho begun\nsleep 300\n")
    job = person.sbatch("train.sh").job
    task = person.task(job)
    answer = person.site.agent("cancel", job, CLEARML_AGENT__hpc__root=f'"{person.root}"')
    assert answer.stdout.endswith(
        f" ({task[:8]}) had job {job}, which was cancelled; the task is stopped when the job has ended\n"
    ), answer.stderr
    status, reason = person.wait_for_end(job)
    assert status is TaskStatus.STOPPED and reason.startswith(f"Slurm job {job} was cancelled"), reason
