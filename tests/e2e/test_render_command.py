"""``hpc-agent render`` on real Slurm: the script that the daemon submits, and where each request comes from."""

from __future__ import annotations

import json
from typing import Any

import pytest
from e2e_site import Site
from waiting import wait_until

pytestmark = pytest.mark.slurm


def rendered(site: Site, *arguments: str, code: int = 0) -> dict[str, Any]:
    answer = site.agent("render", "--json", *arguments)
    assert answer.returncode == code, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def origins(found: dict[str, Any]) -> dict[str, tuple[str | None, str]]:
    return {request["name"]: (request["value"], request["origin"]) for request in found["requests"]}


def test_the_script_is_the_one_that_the_daemon_submits(site: Site) -> None:
    task = site.bare_task("print(1)")
    site.properties(task, num_gpus="1", time_limit="5")
    before = rendered(site, "--id", task[:8])
    site.daemon("--standalone-mode")
    wait_until("its job", lambda: site.jobs(task) or site.status(task).is_final)
    [directory] = (site.root / "runs" / task).iterdir()
    wait_until("its script", (directory / "job.sbatch").exists)
    same = rendered(site, "--id", task, "--diff")
    assert same["diff"] == []
    assert same["script"] == (directory / "job.sbatch").read_text()
    assert before["attempt"] == same["attempt"] == directory.name
    site.properties(task, num_gpus="2")
    changed = rendered(site, "--id", task, "--diff")["diff"]
    assert [line for line in changed if line.startswith(("+#", "-#"))] == [
        "-#SBATCH --gres=gpu:1",
        "+#SBATCH --gres=gpu:2",
    ]


def test_each_request_says_where_it_comes_from(site: Site) -> None:
    site.configure(f'hpc {{ queues {{ "{site.queue}" {{ resources {{ num_cpus: 2 }} }} }} }}')
    task = site.bare_task("print(1)")
    site.properties(task, num_gpus="1")
    found = origins(rendered(site, "--id", task))
    assert found["num_gpus"] == ("1", "the task: user property num_gpus")
    assert found["num_cpus"] == ("2", f'the queue: hpc.queues."{site.queue}".resources.num_cpus')
    assert found["memory_gb"] == ("1", "the site: hpc.resources.memory_gb")
    assert found["time_limit"] == ("00:10:00", "the site: hpc.resources.time_limit")
    assert found["partition"] == (None, "the scheduler's default")
    plain = site.agent("render", "--id", task)
    assert plain.stdout.startswith("#!") and plain.stdout.endswith("\n") and "REQUEST" not in plain.stdout
    assert plain.stderr.splitlines()[0].split() == ["REQUEST", "VALUE", "COMES", "FROM"]
    assert "\nLeft to the scheduler: gpu_type, partition, account" in plain.stderr
    assert not (site.root / "runs" / task).exists()


def test_slurm_says_whether_it_would_take_it_and_when(site: Site) -> None:
    task = site.bare_task("print(1)")
    site.properties(task, num_gpus="1")
    taken = rendered(site, "--id", task, "--check")["check"]
    assert taken["accepted"] and taken["expected_start"].endswith("+00:00") and taken["partition"] == "main"
    plain = site.agent("render", "--id", task, "--check")
    assert plain.stdout.startswith("The scheduler would take it and expects to start it"), plain.stdout
    site.properties(task, partition="none")
    refused = rendered(site, "--id", task, "--check", code=1)["check"]
    assert not refused["accepted"] and "nvalid partition" in refused["message"]
    assert site.slurm("squeue", "-h", "-n", f"clearml_task_{task}") == ""


def test_what_cannot_be_rendered_is_a_sentence(site: Site) -> None:
    task = site.bare_task("print(1)")
    unknown = site.agent("render", "--id", task, "--queue", "no-such-queue")
    assert unknown.returncode == 2 and 'there is no queue "no-such-queue"' in unknown.stderr
    nothing = site.agent("render", "--id", task, "--diff")
    assert nothing.returncode == 2 and "no job of this task was submitted from here" in nothing.stderr
    draft = site.bare_task("print(1)", enqueue=False)
    nowhere = site.agent("render", "--id", draft)
    assert nowhere.returncode == 2 and "say which one with --queue NAME" in nowhere.stderr
    assert rendered(site, "--id", draft, "--queue", site.queue)["queue"] == site.queue
    site.properties(task, num_gpus="9")
    refused = site.agent("render", "--id", task)
    assert refused.returncode == 1
    assert f'num_gpus is 9, but queue "{site.queue}" allows at most 4' in refused.stderr
