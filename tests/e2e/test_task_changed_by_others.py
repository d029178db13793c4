"""Its user, its script, another agent, or Slurm's administrators change a task while our job has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site
from served_queues import serve
from waiting import contains, empty, equals, wait_until

from hpc_agent.domain.ids import TaskId, WorkerId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.retry import ONCE

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep({seconds})\nprint('over', flush=True)\n"


def begun(site: Site, task: TaskId) -> str:
    """Wait for the task's first line; returns its job."""
    wait_until("its first line", lambda: site.console(task).splitlines(), contains("begun"))
    [job] = site.jobs(task)
    return job


def settled(site: Site, task: TaskId) -> list[Path]:
    return wait_until(
        "the daemon to be through with it", lambda: list((site.root / "runs" / task).glob("*/settled.json"))
    )


def accounted(site: Site, job: str) -> str:
    row = ["sacct", "-X", "-n", "-P", "-j", job, "-o", "State"]
    live = ("", "RUNNING", "COMPLETING")
    return wait_until("its record", lambda: site.slurm(*row).strip(), lambda state: state not in live)


def test_a_script_that_completed_its_own_task_goes_on(site: Site) -> None:
    """For longer than a job may outlive a task that another user ended: term_grace (5 s here) and 40 s."""
    served = serve(site, {"completes": ""})
    task = served.task("completes", SLEEP.format(seconds=90))
    job = begun(site, task)
    assert site.client.tasks.set_final_status(task, TaskStatus.COMPLETED, "by its script", "", budget=ONCE)
    assert accounted_after(site, job) == "COMPLETED"
    settled(site, task)
    assert site.status(task) is TaskStatus.COMPLETED
    assert "over" in site.console(task).splitlines()


def accounted_after(site: Site, job: str) -> str:
    wait_until("its job to leave", lambda: site.slurm("squeue", "-h", "-o", "%i").count(job), empty)
    return accounted(site, job)


def test_a_task_that_an_agent_of_another_kind_runs_now_is_left_to_it(site: Site) -> None:
    served = serve(site, {"shared": ""})
    task = served.task("shared", SLEEP.format(seconds=600))
    begun(site, task)
    site.client.session.call("tasks.reset", {"task": task, "force": True})
    site.client.tasks.started(task, "", "", force=True)
    site.client.workers.report(WorkerId("other:gpu0"), task=task)
    wait_until("our job to leave", lambda: site.jobs(task), empty)
    settled(site, task)
    assert site.status(task) is TaskStatus.IN_PROGRESS
    assert site.client.queues.queue_of(task) is None


@pytest.mark.parametrize("how", ["tasks.reset", "tasks.delete"])
def test_a_task_that_is_reset_or_deleted_while_it_runs_ends_and_stays_so(site: Site, how: str) -> None:
    served = serve(site, {"runs": ""})
    task = served.task("runs", SLEEP.format(seconds=600))
    begun(site, task)
    site.client.session.call(how, {"task": task, "force": True})
    wait_until("our job to leave", lambda: site.jobs(task), empty)
    settled(site, task)
    left = {found: get_states.status for found, get_states in site.client.tasks.get_states([task]).items()}
    assert left == ({task: TaskStatus.CREATED} if how == "tasks.reset" else {})
    assert site.client.queues.queue_of(task) is None


def test_one_that_is_enqueued_again_right_after_a_reset_runs_once_more(site: Site) -> None:
    served = serve(site, {"again": ""})
    ledger = site.folder / "ledger"
    text = f"open({str(ledger)!r}, 'a').write('start\\n')\n" + SLEEP
    task = served.task("again", text.format(seconds=600))
    job = begun(site, task)
    site.client.session.call("tasks.reset", {"task": task, "force": True})
    site.client.tasks.enqueue(task, served.ids["again"])
    wait_until("another job", lambda: [other for other in site.jobs(task) if other != job])
    wait_until("its second start", ledger.read_text, equals("start\n" * 2))
    wait_until("the first job to leave", lambda: job not in site.jobs(task))
    assert site.status(task) is TaskStatus.IN_PROGRESS


def test_scancel_after_a_failed_prolog_is_a_cancellation(site: Site, slurm_cluster: Any) -> None:
    served = serve(site, {"cancel": ""})
    fails = slurm_cluster.dir / "prolog-fails"

    fails.touch()
    try:
        task = served.task("cancel", SLEEP.format(seconds=600))
        wait_until("a node to be drained", site.drained)
    finally:
        fails.unlink()
        for name in site.drained():
            site.slurm("scontrol", "update", f"nodename={name}", "state=resume")
    job = begun(site, task)
    [output] = (site.root / "runs" / task).glob("*/job.out")
    assert "prolog" in output.read_text() or "could not be started on its node" in site.console(task)
    site.slurm("scancel", job)
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert f"job {job} was cancelled by" in site.reason(task)
    assert not site.jobs(task)


def test_a_deleted_queue_stops_no_other_and_its_tasks_end(site: Site) -> None:
    served = serve(site, {"gone": "", "stays": ""}, slurm='sbatch_args: ["--no-requeue"]')
    task = served.task("gone", SLEEP.format(seconds=600))
    job = begun(site, task)
    site.client.session.call("queues.delete", {"queue": served.ids["gone"], "force": True})
    assert site.wait_for_end(served.task("stays", "print('ran')\n")) is TaskStatus.COMPLETED
    assert site.status(task) is TaskStatus.IN_PROGRESS
    name = site.slurm("squeue", "-h", "-j", job, "-o", "%N").strip()
    site.slurm("scontrol", "update", f"nodename={name}", "state=down", "reason=test")
    try:
        assert site.wait_for_end(task) is TaskStatus.FAILED
        assert "the queue that it came from was deleted: enqueue it on another" in site.reason(task)
    finally:
        wait_until("the node to come back", lambda: site.resumed(name))


@pytest.fixture(autouse=True)
def no_job_outlives_its_test(site: Site) -> Any:
    yield
    site.cancel_all_jobs()
