"""``hpc-agent why`` on real Slurm: why a task waits, and how it died."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import pytest
from e2e_site import Site
from sbatch_bench import Person
from waiting import contains, empty, equals, wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.slurm


def why(site: Site, word: str, **env: Any) -> dict[str, Any]:
    answer = site.agent("why", "--json", word, **env)
    assert answer.returncode == 0, answer.stderr
    print(site.agent("why", word, COLUMNS="90", **env).stdout)
    [found] = json.loads(answer.stdout)
    explanation: dict[str, Any] = found
    explanation["sources"] = {item["source"]: item["text"] for item in found["evidence"]}
    return explanation


def is_on_its_page(site: Site, found: dict[str, Any]) -> bool:
    """Whether the task's status reason is the same sentence, with the same next step in it."""
    reason, step = site.reason(found["task"]), f"; {found['next_step']}"
    print(reason)
    return step in reason and reason.replace(step, "", 1) == found["sentence"]


def without_dates(text: str) -> str:
    """An expected start may change between two looks."""
    return re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}", "DATE", text)


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
        wait_until("the same on its page", lambda: site.message(task), equals(found["sentence"]))
        printed = site.agent("why", task).stdout
    finally:
        site.slurm("scontrol", "update", "partitionname=main", "state=up")
    assert found["verdict"] == "waiting"
    assert printed.count("is waiting") == 1 and printed.startswith(f"bare ({task[:8]}): Slurm job ")
    assert "is waiting (PartitionDown): its partition is closed" in found["sentence"]
    assert found["next_step"].startswith("it goes on only after a change")
    assert "PENDING, reason PartitionDown, submitted" in found["sources"]["scheduler"]


def test_another_partition_is_named_on_which_it_would_start_sooner(site: Site) -> None:
    for partition, node in (("filled", "n1"), ("roomy", "n2")):
        site.slurm("scontrol", "create", f"partitionname={partition}", f"nodes={node}", "state=up")
    rules = "resources { partition: filled }, overrides { partition { choices: [filled, roomy] } }"
    site.configure(f'hpc {{ queues {{ "{site.queue}" {{ {rules} }} }} }}')
    filler = ["sbatch", "--parsable", "--partition=filled", "--exclusive", "--time=60", "--output=/dev/null"]
    try:
        job = site.slurm(*filler, "--wrap=sleep 3600").strip()
        wait_until(
            "the node to be full", lambda: site.slurm("squeue", "-h", "-j", job, "-o", "%T"), contains("RUNNING")
        )
        task = site.bare_task("print('over')")
        site.daemon(CLEARML_AGENT__hpc__wait_message_interval="1")
        message = wait_until("the hint", lambda: site.message(task), contains("sooner"))
        assert re.search(
            r"^Slurm job [0-9]+ is waiting \((Resources|Priority)\).*, expected to start DATE UTC"
            r"; it would start sooner on partition roomy \(at once\): "
            r"set the user property partition and enqueue it again$",
            without_dates(message),
        )
        found = why(site, task)
        assert without_dates(found["sentence"]) == without_dates(message)
        assert (found["verdict"], found["next_step"]) == ("waiting", "wait, or do that")
        # It does start sooner there.
        assert site.agent("cancel", task).returncode == 0
        site.client.session.call("tasks.reset", {"task": task})
        site.properties(task, partition="roomy")
        site.client.tasks.enqueue(task, site.queue_id)
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
        assert "filled" in site.slurm("squeue", "-h", "-j", job, "-o", "%P")
    finally:
        site.cancel_all_jobs()
        for partition in ("filled", "roomy"):
            wait_until("its jobs to leave", partial(site.slurm, "squeue", "-h", "-p", partition), empty)
            site.slurm("scontrol", "delete", f"partitionname={partition}")


def test_a_program_that_died_of_what_its_console_shows(site: Site) -> None:
    site.daemon()
    task = site.bare_task("print('begun')\nimport no_such_module\n")
    site.wait_for_end(task)
    wait_until("its job to leave", lambda: site.jobs(task), empty)
    found = why(site, task[:8])
    assert found["verdict"] == "failed"
    assert "no_such_module" in found["sentence"]
    assert found["next_step"] == "add its package to the task's requirements and enqueue the task again"
    assert found["sources"]["exception"].startswith("ModuleNotFoundError: No module named 'no_such_module'")
    assert "begun" in found["last_lines"]
    [job] = [word for word in found["sources"]["accounting"].split() if word.isdigit()][:1]
    assert "FAILED, exit code 1, ran 00:00:" in found["sources"]["accounting"]
    assert why(site, job)["task"] == task
    assert is_on_its_page(site, found)


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
    assert is_on_its_page(site, found)


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
    assert is_on_its_page(person.site, found)
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
