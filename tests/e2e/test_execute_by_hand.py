"""A script that a person wrote runs a task with ``hpc-agent execute --id … --require-queue``; no daemon is there."""

from __future__ import annotations

import sys

import pytest
from sbatch_bench import Person
from waiting import contains, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

SCRIPT = f"""#!/bin/bash
#SBATCH --gres=gpu:2 --mem=1G
echo of the site
exec {sys.executable} -m hpc_agent execute --id "$1" --require-queue
"""
GPUS = "import os, sys\nprint('gpus', os.environ['CUDA_VISIBLE_DEVICES'])\nsys.exit(3)\n"
SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(300)\n"


def test_the_job_runs_the_task_and_ends_with_its_exit_code(person: Person) -> None:
    task = person.site.bare_task(GPUS)
    person.script(SCRIPT)
    answer = person.plain("--wait", "train.sh", task)
    assert answer.returncode == 3
    assert person.site.wait_for_end(task) is TaskStatus.FAILED
    [gpus] = [line for line in person.site.console(task).splitlines() if line.startswith("gpus")]
    assert len(gpus.split()[1].split(",")) == 2
    output = (person.site.folder / f"slurm-{answer.job}.out").read_text()
    assert output.startswith("of the site\n") and gpus in output


def test_of_two_jobs_one_runs_the_task_and_one_fails_with_66(person: Person) -> None:
    task = person.site.bare_task("import time\nprint('once', flush=True)\ntime.sleep(3)\n")
    person.script(SCRIPT)
    jobs = [person.plain("train.sh", task).job for _ in "ab"]
    assert sorted(person.wait_for_job(job) for job in jobs) == ["COMPLETED 0:0", "FAILED 66:0"]
    assert person.site.status(task) is TaskStatus.COMPLETED
    assert person.site.console(task).splitlines().count("once") == 1


def test_a_task_taken_off_its_queue_is_left_alone_and_the_job_says_why(person: Person) -> None:
    task = person.site.bare_task(GPUS)
    person.site.client.tasks.dequeue(task)
    person.script(SCRIPT)
    answer = person.plain("--wait", "train.sh", task)
    assert answer.returncode == 66
    assert person.site.status(task) is TaskStatus.CREATED
    output = (person.site.folder / f"slurm-{answer.job}.out").read_text()
    assert f"error: task {task} was not run: it is a draft, not queued; enqueue it first" in output


def test_of_the_processes_of_one_step_one_runs_the_task_and_the_job_ends_well(person: Person) -> None:
    task = person.site.bare_task("import time\nprint('once', flush=True)\ntime.sleep(3)\n")
    person.script(SCRIPT.replace("exec ", "srun --ntasks=3 --overcommit ").replace("--gres=gpu:2 ", ""))
    answer = person.plain("--wait", "train.sh", task)
    assert answer.returncode == 0, (person.site.folder / f"slurm-{answer.job}.out").read_text()
    assert person.site.status(task) is TaskStatus.COMPLETED
    assert person.site.console(task).splitlines().count("once") == 1


def test_a_task_that_is_not_queued_is_an_error_with_a_code_of_its_own(person: Person) -> None:
    site = person.site
    draft, finished, published = (site.bare_task("print('never')\n", enqueue=False) for _ in range(3))
    for task in (finished, published):
        site.client.session.call("tasks.completed", {"task": task, "force": True})
    site.client.session.call("tasks.publish", {"task": published})
    for task, why in (
        (draft, "it is a draft, not queued; enqueue it first"),
        (finished, "it is completed, not queued; enqueue it to run it again"),
        (published, "it is published, not queued; clone it and enqueue the clone"),
        (TaskId("f" * 32), "the server has no such task, or does not show it to this account"),
    ):
        done = site.agent("execute", "--id", task, "--require-queue")
        assert (done.returncode, done.stdout) == (66, "")
        assert done.stderr.splitlines()[-1] == f"error: task {task} was not run: {why}"
    named = site.agent("execute", "--id", "no such task", "--require-queue")
    assert named.returncode == 66
    assert 'no task has the id or name "no such task"' in named.stderr


def test_a_job_that_a_daemon_submitted_leaves_such_a_task_with_0(person: Person) -> None:
    site = person.site
    draft = site.bare_task("print('never')\n", enqueue=False)
    run = site.root / "runs" / draft / "attempt"
    run.mkdir(parents=True)
    done = site.agent("execute", "--id", draft, "--require-queue", HPC_AGENT_RUN_DIR=str(run), HPC_AGENT_JOB_ID="1")
    assert done.returncode == 0, done.stderr
    assert "task.not_claimed" in done.stderr
    assert site.status(draft) is TaskStatus.CREATED


def test_scancel_gives_the_task_its_time_and_its_status(person: Person) -> None:
    task = person.site.bare_task(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))\n" + SLEEP
    )
    person.script(SCRIPT)
    job = person.plain("train.sh", task).job
    wait_until("its first line", lambda: person.site.console(task), contains("begun"))
    person.site.slurm("scancel", job)
    assert person.site.wait_for_end(task) is TaskStatus.STOPPED
    assert "saved" in person.site.console(task)


def test_an_abort_ends_the_job(person: Person) -> None:
    task = person.site.bare_task(SLEEP)
    person.script(SCRIPT)
    job = person.plain("train.sh", task).job
    wait_until("its first line", lambda: person.site.console(task), contains("begun"))
    person.site.client.session.call("tasks.stop", {"task": task})
    assert person.site.wait_for_end(task) is TaskStatus.STOPPED
    assert person.wait_for_job(job).startswith("FAILED")
