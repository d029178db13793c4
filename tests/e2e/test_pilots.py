"""Pilots: one Slurm job runs many tasks of a queue, and none of them notices, whatever becomes of the pilot."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence

import pytest
from e2e_site import UNTIL_GO, Site
from waiting import contains, empty, equals, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.pilot_slots import pilot_name
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm]

ENDED = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.STOPPED)
SHORT = """
import os, time
print("started at", time.time(), "gpus", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
time.sleep({seconds})
print("ended at", time.time(), flush=True)
"""
LEDGER = """
import os, sys, time
with open({ledger!r}, "a") as ledger:
    ledger.write("begun\\n")
print("begun", flush=True)
while not os.path.exists({go!r}):
    time.sleep(0.1)
with open({ledger!r}, "a") as ledger:
    ledger.write("over\\n")
print("over", flush=True)
"""
"""Writes down each run of itself."""


def in_pilots(
    site: Site, *, cpus: int = 2, gpus: int = 0, most: int = 1, idle: float = 3, minutes: int = 60, task: int = 10
) -> None:
    """Have the site's queue served by pilots of this size, tasks of one CPU and ``task`` minutes each."""
    site.configure(
        f"""
hpc {{ queues {{ "{site.queue}" {{
    mode: pilot
    resources {{ num_cpus: 1, memory_gb: 0.5, time_limit: {task} }}
    pilot {{
        resources {{ num_cpus: {cpus}, memory_gb: {cpus / 2}, num_gpus: {gpus}, time_limit: {minutes} }}
        max_pilots: {most}
        idle_time: {idle}
    }}
}} }} }}
"""
    )


def pilots(site: Site, *states: str) -> list[str]:
    """Ids of the site's pilots in Slurm's list."""
    rows = [row.split() for row in site.slurm("squeue", "-h", "-o", "%i %T %j").splitlines()]
    return [id for id, state, name in rows if name == pilot_name(site.queue) and (not states or state in states)]


def all_pilots(site: Site) -> set[str]:
    """Those of before, too."""
    return set(re.findall(r"pilot\.submitted queue=\S+ job=(\d+)", (site.folder / "daemon.log").read_text()))


def wait_for_all(site: Site, tasks: Sequence[TaskId]) -> list[TaskStatus]:
    found = wait_until(
        "all to end",
        lambda: [state.status for state in site.client.tasks.get_states(list(tasks)).values()],
        lambda statuses: all(status in ENDED for status in statuses),
        timeout=480,
    )
    return list(found)


def begun(site: Site, task: TaskId) -> None:
    wait_until(f"the first line of {task}", lambda: site.lines(task), contains("begun"))


def gpus_of(site: Site, task: TaskId) -> list[str]:
    """What its program saw."""
    [line] = [line for line in site.lines(task) if line.startswith("gpus")]
    return line.split()[1:]


def ended_pilot(site: Site) -> None:
    """Nothing is left for the next test."""
    wait_until("the pilots to end", lambda: pilots(site), empty)


def test_many_short_tasks_run_in_one_job(site: Site) -> None:
    in_pilots(site)
    tasks = [site.bare_task(SHORT.format(seconds=1)) for _ in range(12)]
    site.daemon()
    assert wait_for_all(site, tasks) == [TaskStatus.COMPLETED] * 12
    jobs = {job for task in tasks for job in site.submitted(task)}
    assert len(jobs) == 12
    assert all(job.startswith("p") for job in jobs), jobs
    ended_pilot(site)
    assert len(all_pilots(site)) == 1


def test_tasks_run_side_by_side_as_their_gpus_allow(site: Site) -> None:
    in_pilots(site, cpus=4, gpus=2)
    go = site.folder / "go"
    text = (
        f"import os\nprint('gpus', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)\n{UNTIL_GO.format(go=str(go))}"
    )
    tasks = [site.bare_task(text, enqueue=False) for _ in range(3)]
    for task in tasks:
        site.properties(task, num_gpus="1")
        site.client.tasks.enqueue(task, site.queue_id)
    site.daemon()
    # Which two come first: those whose source and environment are ready first.
    wait_until("two of them to begin", lambda: sum("begun" in site.lines(task) for task in tasks) == 2)
    assert sorted(site.status(task).value for task in tasks) == ["in_progress", "in_progress", "queued"]
    [first, second] = [gpus_of(site, task) for task in tasks if "begun" in site.lines(task)]
    assert first != second
    go.touch()
    assert wait_for_all(site, tasks) == [TaskStatus.COMPLETED] * 3
    gpus = [gpus_of(site, task) for task in tasks]
    assert all(len(seen) == 1 and "," not in seen[0] for seen in gpus), gpus
    ended_pilot(site)


def test_one_task_is_aborted_explained_and_measured_like_any_other(site: Site) -> None:
    in_pilots(site, cpus=2, idle=0)
    go = site.folder / "go"
    aborted, other = site.bare_task(UNTIL_GO.format(go=str(go))), site.bare_task(UNTIL_GO.format(go=str(go)))
    site.daemon()
    for task in (aborted, other):
        begun(site, task)
    waiting = site.bare_task("print('late')\n")
    [pilot] = pilots(site, "RUNNING")
    [job] = site.submitted(aborted)
    said = site.agent("why", aborted).stdout
    assert f"Pilot job {job} runs on " in said and f"in Slurm job {pilot}" in said, said
    rows = {row["task"]: row for row in json.loads(site.agent("jobs", "--json").stdout)["jobs"]}
    assert rows[aborted]["state"] == "running" and rows[aborted]["job"] == job
    wait_until("it to wait for a slot", lambda: site.agent("why", waiting).stdout, contains("slot"))
    site.client.session.call("tasks.stop", {"task": aborted})
    assert site.wait_for_end(aborted) is TaskStatus.STOPPED
    assert site.status(other) is TaskStatus.IN_PROGRESS
    assert site.wait_for_end(waiting) is TaskStatus.COMPLETED
    go.touch()
    assert site.wait_for_end(other) is TaskStatus.COMPLETED
    properties = site.client.tasks.get(other).properties
    asked = {"hpc_used_cpus": " of 1 CPUs ", "hpc_used_memory": " of 0.5 GiB ", "hpc_used_time": " of 00:10:00 "}
    assert {name: of for name, of in asked.items() if of not in properties.get(name, "")} == {}, properties
    ended_pilot(site)


def test_a_waiting_task_that_is_taken_off_its_queue_never_starts(site: Site) -> None:
    in_pilots(site, cpus=1)
    go = site.folder / "go"
    first = site.bare_task(UNTIL_GO.format(go=str(go)))
    site.daemon()
    begun(site, first)
    waiting = site.bare_task("print('never')\n")
    wait_until("it to be handed over", lambda: site.submitted(waiting))
    site.client.tasks.dequeue(waiting)
    go.touch()
    assert site.wait_for_end(first) is TaskStatus.COMPLETED
    ended_pilot(site)
    assert site.status(waiting) is TaskStatus.CREATED
    assert "never" not in site.console(waiting)


@pytest.mark.parametrize("way", ["scancel", "kill"])
def test_tasks_of_a_pilot_that_ends_start_again_elsewhere_once(site: Site, way: str) -> None:
    in_pilots(site, cpus=2)
    go, ledgers = site.folder / "go", [site.folder / "a", site.folder / "b"]
    tasks = [site.bare_task(LEDGER.format(ledger=str(ledger), go=str(go))) for ledger in ledgers]
    site.daemon()
    for task in tasks:
        begun(site, task)
    [pilot] = pilots(site, "RUNNING")
    if way == "scancel":
        site.slurm("scancel", pilot)
    else:
        kill_pilot(site, pilot)
    twice = equals(["begun\nbegun\n"] * 2)
    wait_until("their second starts", lambda: [ledger.read_text() for ledger in ledgers], twice)
    go.touch()
    assert wait_for_all(site, tasks) == [TaskStatus.COMPLETED] * 2
    assert [ledger.read_text() for ledger in ledgers] == ["begun\nbegun\nover\n"] * 2
    assert pilot in all_pilots(site)
    ended_pilot(site)


def kill_pilot(site: Site, pilot: str) -> None:
    """SIGKILL to the pilot's own process, and to nothing else."""
    claims = [json.loads(file.read_text()) for file in site.root.glob("pilots/*/open/*.claim")]
    [pid] = {claim["process"]["pid"] for claim in claims if claim["pilot"] == pilot}
    os.kill(pid, signal.SIGKILL)


def test_a_pilot_whose_time_is_short_hands_over_to_the_next_one(site: Site) -> None:
    # A task may take ten minutes, and less than that is left of the pilot soon after its first one has started.
    in_pilots(site, cpus=1, minutes=12, task=10, idle=60)
    go = site.folder / "go"
    first = site.bare_task(UNTIL_GO.format(go=str(go)))
    site.daemon()
    begun(site, first)
    [pilot] = pilots(site, "RUNNING")
    later = site.bare_task("print('later')\n")
    wait_until("the pilot to be full", lambda: list(site.root.glob(f"pilots/*/full/{pilot}")))
    go.touch()
    assert wait_for_all(site, [first, later]) == [TaskStatus.COMPLETED] * 2
    assert len(all_pilots(site)) == 2


def test_pilots_grow_with_the_queue_to_their_maximum_and_go_when_it_is_empty(site: Site) -> None:
    in_pilots(site, cpus=1, most=2, idle=15)
    go = site.folder / "go"
    tasks = [site.bare_task(UNTIL_GO.format(go=str(go))) for _ in range(3)]
    site.daemon()
    # Which two come first: those whose source and environment are ready first.
    wait_until("two of them to begin", lambda: sum("begun" in site.lines(task) for task in tasks) == 2)
    assert len(pilots(site)) == 2
    assert sorted(site.status(task).value for task in tasks) == ["in_progress", "in_progress", "queued"]
    go.touch()
    assert wait_for_all(site, tasks) == [TaskStatus.COMPLETED] * 3
    ended_pilot(site)
    assert len(all_pilots(site)) == 2


def test_a_task_that_does_not_fit_into_a_pilot_has_a_job_of_its_own(site: Site) -> None:
    in_pilots(site, cpus=1)
    task = site.bare_task("print('large')\n", enqueue=False)
    site.properties(task, num_cpus="2")
    site.client.tasks.enqueue(task, site.queue_id)
    site.daemon()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    [job] = site.submitted(task)
    assert job.isdigit()


def test_without_a_batch_system_the_daemon_says_that_there_are_no_pilots(machine: Site) -> None:
    in_pilots(machine)
    done = machine.agent("daemon", "--queue", machine.queue, "--once")
    assert done.returncode == 2
    assert "runs no pilots: set the mode to job" in done.stderr
