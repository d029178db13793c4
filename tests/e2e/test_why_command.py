"""``hpc-agent why`` on real Slurm: why a task waits, and how it died."""

from __future__ import annotations

import json
from typing import Any

import pytest
from e2e_site import Site
from sbatch_bench import Person
from waiting import wait_until

pytestmark = pytest.mark.slurm


def why(site: Site, word: str, **env: Any) -> dict[str, Any]:
    answer = site.agent("why", "--json", word, **env)
    assert answer.returncode == 0, answer.stderr
    print(site.agent("why", word, COLUMNS="90", **env).stdout)
    [found] = json.loads(answer.stdout)
    explanation: dict[str, Any] = found
    explanation["sources"] = {item["source"]: item["text"] for item in found["evidence"]}
    return explanation


def test_a_task_in_a_queue_without_a_daemon(site: Site) -> None:
    task = site.bare_task("print(1)")
    found = why(site, task[:8])
    assert found["verdict"] == "waiting"
    assert found["sentence"].startswith(
        f'it is number 1 of 1 in the queue "{site.queue}" and has no job yet, and no daemon'
    )
    assert found["next_step"].startswith(f"start one with `hpc-agent daemon --queue {site.queue} --detached`")
    draft = site.bare_task("print(1)", enqueue=False)
    assert why(site, draft)["verdict"] == "draft"


def test_a_job_that_waits(site: Site) -> None:
    task = site.bare_task("print(1)")
    site.slurm("scontrol", "update", "partitionname=main", "state=down")
    try:
        site.daemon()
        wait_until("its job", lambda: site.jobs(task))
        found = why(site, site.jobs(task)[0])
        printed = site.agent("why", task).stdout
    finally:
        site.slurm("scontrol", "update", "partitionname=main", "state=up")
    assert found["verdict"] == "waiting"
    assert printed.count("is waiting") == 1 and printed.startswith(f"bare ({task[:8]}): Slurm job ")
    assert "is waiting (PartitionDown): its partition is closed" in found["sentence"]
    assert found["next_step"].startswith("it goes on only after a change")
    assert "PENDING, reason PartitionDown, submitted" in found["sources"]["scheduler"]


def test_a_program_that_died_of_what_its_console_shows(site: Site) -> None:
    site.daemon()
    task = site.bare_task("print('begun')\nimport no_such_module\n")
    site.wait_for_end(task)
    found = why(site, task[:8])
    assert found["verdict"] == "failed"
    assert "no_such_module" in found["sentence"]
    assert found["next_step"] == "add its package to the task's requirements and enqueue the task again"
    assert found["sources"]["exception"].startswith("ModuleNotFoundError: No module named 'no_such_module'")
    assert "begun" in found["last_lines"]
    [job] = [word for word in found["sources"]["accounting"].split() if word.isdigit()][:1]
    assert "FAILED, exit code 1, ran 00:00:" in found["sources"]["accounting"]
    assert why(site, job)["task"] == task


def test_a_task_over_its_memory(site: Site) -> None:
    site.daemon()
    task = site.bare_task(
        "import time\ndata = bytearray(2 << 30)\nfor i in range(0, len(data), 4096): data[i] = 1\ntime.sleep(60)\n"
    )
    site.wait_for_end(task)
    found = why(site, task)
    assert (found["verdict"], found["sentence"].partition(":")[0]) == ("failed", "out of memory")
    assert found["next_step"] not in found["sentence"]
    assert found["next_step"] == "ask for more with the user property memory_gb"


def test_a_script_over_its_time_limit_is_found_by_the_number_of_its_job(person: Person) -> None:
    env = {"CLEARML_AGENT__hpc__root": f'"{person.root}"'}
    person.script("#!/bin/bash\n#SBATCH -t 1\necho begun\nsleep 300\n")
    job = person.sbatch("train.sh").job
    task = person.task(job)
    assert "is waiting" in (found := why(person.site, job, **env))["sentence"] or found["verdict"] == "running"
    person.wait_for_end(job)
    found = why(person.site, job, **env)
    assert found["task"] == task and found["verdict"] == "failed"
    assert found["sentence"].startswith("time limit 00:01:00 reached after 00:01:")
    assert found["next_step"] == "ask for more with --time"
    assert f"job {job} TIMEOUT" in found["sources"]["accounting"]


def test_a_task_that_the_daemon_refused(site: Site) -> None:
    site.daemon()
    task = site.bare_task("print(1)", enqueue=False)
    site.properties(task, num_gpus="9")
    site.client.tasks.enqueue(task, site.queue_id)
    site.wait_for_end(task)
    found = why(site, task)
    assert found["sentence"] == f'num_gpus is 9, but queue "{site.queue}" allows at most 4'
    assert found["next_step"].startswith("change that and enqueue it again; `hpc-agent render --id")
    assert found["last_lines"] == []


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("99999999", "no task here has a job 99999999"),
        ("no-such-name", 'no task has the id or name "no-such-name"'),
        (" ", "the task is empty: give its id"),
        ("ffff", 'no task has the id or name "ffff"'),
    ],
)
def test_what_is_not_a_task_is_a_sentence(site: Site, word: str, sentence: str) -> None:
    answer = site.agent("why", word)
    assert answer.returncode == 2 and sentence in answer.stderr, answer.stderr
