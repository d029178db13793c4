"""A script that a person wrote runs a task with ``hpc-agent execute --id … --require-queue``; no daemon is there."""

from __future__ import annotations

import sys

import pytest
from sbatch_bench import Person
from waiting import contains, wait_until

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


def test_of_two_jobs_one_runs_the_task_and_one_ends_well(person: Person) -> None:
    task = person.site.bare_task("import time\nprint('once', flush=True)\ntime.sleep(3)\n")
    person.script(SCRIPT)
    jobs = [person.plain("train.sh", task).job for _ in "ab"]
    assert [person.wait_for_job(job) for job in jobs] == ["COMPLETED 0:0", "COMPLETED 0:0"]
    assert person.site.status(task) is TaskStatus.COMPLETED
    assert person.site.console(task).splitlines().count("once") == 1


def test_a_task_taken_off_its_queue_is_left_alone(person: Person) -> None:
    task = person.site.bare_task(GPUS)
    person.site.client.tasks.dequeue(task)
    person.script(SCRIPT)
    assert person.plain("--wait", "train.sh", task).returncode == 0
    assert person.site.status(task) is TaskStatus.CREATED


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
