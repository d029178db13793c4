"""Each way in which Slurm ends a job, or does not start it: what the task says, and whether it goes on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site
from served_queues import serve
from waiting import contains, empty, equals, wait_until

from hpc_agent.clock import SYSTEM
from hpc_agent.daemon.nodes import DEATHS, BadNodes
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.runs.directory import RunsFolder

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

CHECKPOINT = """
import os, signal, sys, time
path = {path!r}
starts = len(open(path).readlines()) if os.path.exists(path) else 0
open(path, "a").write(f"{{os.getpid()}}\\n")
print("start", starts, flush=True)
def save(number, frame):
    print("saving checkpoint after", signal.Signals(number).name, flush=True)
    sys.exit(0)
signal.signal(signal.{signal}, save)
if starts >= {starts}:
    print("trained", flush=True)
    sys.exit(0)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("begun", flush=True)
time.sleep(600)
"""
SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"


def checkpoint(site: Site, name: str, *, signal: str = "SIGTERM", starts: int = 99) -> str:
    return CHECKPOINT.format(path=str(site.folder / name), signal=signal, starts=starts)


def node(site: Site, job: str) -> str:
    return site.slurm("squeue", "-h", "-j", job, "-o", "%N").strip()


def test_a_time_limit_is_announced_and_reported_or_the_task_goes_on(site: Site, slurm_cluster: Any) -> None:
    """Slurm's time limits are minutes: all that has to do with one shares this one."""
    slurm_cluster.run(
        *("scontrol", "create", "reservation", "ReservationName=short", "StartTime=now", "Duration=2"),
        *("Users=root", "Nodes=n3", "Flags=ignore_jobs"),
    )
    served = serve(
        site,
        {
            "plain": "",
            "again": "on_time_limit: requeue, signal: USR1",
            "once": "on_time_limit: requeue, max_restarts: 1",
            "late": "signal_ahead: 0",
        },
    )
    minute = {"time_limit": "1"}
    stopped = served.task("plain", checkpoint(site, "stopped"), **minute)
    goes_on = served.task("again", checkpoint(site, "goes_on", signal="SIGUSR1", starts=1), **minute)
    gives_up = served.task("once", checkpoint(site, "gives_up"), **minute)
    late = served.task("late", STUBBORN, **minute)
    in_reservation = {"reservation": "short", "time_limit": "60", "num_gpus": "4"}
    reserved = served.task("plain", SLEEP, **in_reservation)
    site.begun(reserved)
    too_late = served.task("plain", SLEEP, **in_reservation)

    assert site.wait_for_end(stopped) is TaskStatus.FAILED
    assert re.match(r"time limit 00:01:00 reached after 00:00:(4|5)\d; ask for more with", site.reason(stopped))
    [explained] = json.loads(site.agent("why", "--json", stopped).stdout)
    assert site.reason(stopped) == f"{explained['sentence']}; {explained['next_step']}"
    console = site.console(stopped)
    # In this order or the other: the signal waits for no line.
    assert "Stopping: its time limit is near; SIGTERM" in console and "saving checkpoint after SIGTERM" in console

    assert site.wait_for_end(goes_on) is TaskStatus.COMPLETED
    seen = site.lines(goes_on)
    order = ["start 0", "saving checkpoint after SIGUSR1", "start 1", "trained"]
    assert [line for line in seen if line in order] == order
    assert any(line.startswith("Restart 1 of job") for line in seen)
    assert any("is started again (restart 1 of 3)" in line for line in seen)

    assert site.wait_for_end(late) is TaskStatus.FAILED
    assert "time limit 00:01:00 reached after 00:0" in site.reason(late)

    assert site.wait_for_end(gives_up) is TaskStatus.FAILED
    assert site.reason(gives_up).endswith("; it was restarted once before (max_restarts)")
    assert [line for line in site.lines(gives_up) if line.startswith("start ")] == ["start 0", "start 1"]

    assert site.wait_for_end(reserved) is TaskStatus.FAILED
    assert re.search(
        r"time was up after 00:0\d:\d\d, before its time limit of 01:00:00: its res", site.reason(reserved)
    )
    assert site.wait_for_end(too_late) is TaskStatus.FAILED
    assert "can never start (Reservation short was deleted): its reservation is over" in site.reason(too_late)
    assert site.reason(too_late) in site.console(too_late)
    wait_until("its job to be cancelled", lambda: site.jobs(too_late), empty)


def test_a_preempted_task_waits_and_goes_on_in_the_same_job_or_in_a_new_one(site: Site) -> None:
    stays = serve(site, {"stays": ""})
    leaves = serve(site, {"leaves": ""}, slurm='sbatch_args: ["--no-requeue"]')
    scavenge = {"partition": "scavenge", "num_gpus": "3"}
    text = {name: checkpoint(site, name, starts=1) for name in ("stays", "leaves")}
    first = stays.task("stays", text["stays"], constraint="h100", **scavenge)
    job = site.begun(first, "start 0")
    urgent = ["sbatch", "-o", "/dev/null", "-p", "urgent", "--gres=gpu:4", "--exclusive", "-C", "h100"]
    seen = site.folder / "seen"
    site.slurm(*urgent, "--wrap", f"until test -e {seen}; do sleep 0.2; done")
    wait_until("its message", lambda: site.message(first).startswith("requeued, waiting"))
    assert site.status(first) is TaskStatus.IN_PROGRESS
    seen.touch()
    wait_until("a line of it", lambda: site.console(first), contains(f"job {job} was requeued (start 2) and waits"))
    assert site.wait_for_end(first) is TaskStatus.COMPLETED
    assert f"Restart 1 of job {job}" in site.console(first)

    second = leaves.task("leaves", text["leaves"], constraint="h100", **scavenge)
    other = site.begun(second, "start 0")
    site.slurm(*urgent, "--wrap", "sleep 5")
    assert site.wait_for_end(second) is TaskStatus.COMPLETED
    lines = site.lines(second)
    assert any(line.startswith(f"Slurm job {other} was preempted") and "(restart 1)" in line for line in lines)
    assert [line for line in lines if line.startswith("start ")] == ["start 0", "start 1"]


LOOKS = """\
#!{python}
import os, signal, time
from hpc_agent.domain.ids import JobId
from hpc_agent.schedulers.slurm.current_job import SlurmCurrentJob
job = SlurmCurrentJob(JobId(os.environ["SLURM_JOB_ID"]), os.environ)
def look(number, frame):
    with open({seen!r}, "a") as file:
        print(job.is_end_announced(), file=file)
    raise SystemExit
signal.signal(signal.SIGTERM, look)
with open({seen!r}, "a") as file:
    print(job.is_end_announced(), file=file)
time.sleep(600)
"""


@pytest.mark.parametrize("command", [["scancel"], ["scontrol", "requeue"]])
def test_slurm_announces_the_end_of_a_job_before_it_signals_its_processes(site: Site, command: list[str]) -> None:
    seen = site.folder / "seen"
    script = site.folder / "looks.py"
    script.write_text(LOOKS.format(python=sys.executable, seen=str(seen)))
    job = site.slurm("sbatch", "--parsable", "-o", str(site.folder / "looks.out"), str(script)).strip()
    wait_until("its first look", lambda: seen.exists() and seen.read_text() == "False\n")
    site.slurm(*command, job)
    wait_until("its look at SIGTERM", lambda: seen.read_text().splitlines()[:2], equals(["False", "True"]))
    site.slurm("scancel", job)


def test_after_two_deaths_on_a_node_the_third_job_goes_elsewhere(site: Site) -> None:
    served = serve(site, {"nodes": ""}, slurm='sbatch_args: ["--no-requeue"]')
    task = served.task("nodes", checkpoint(site, "nodes", starts=2))
    nodes = []
    try:
        for start in range(2):
            nodes.append(node(site, site.begun(task, f"start {start}")))
            # No job starts on another node until this one is back.
            site.slurm("scontrol", "update", "partitionname=main", "state=down")
            site.slurm("scontrol", "update", f"nodename={nodes[-1]}", "state=down", "reason=test")
            wait_until("it to be in its queue again", partial(site.console, task), contains(f"(restart {start + 1})"))
            wait_until("the node to come back", lambda: site.resumed(nodes[-1]))
            site.slurm("scontrol", "update", "partitionname=main", "state=up")
        assert nodes[0] == nodes[1]
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
        assert f"; node {nodes[0]} is avoided from now on" in site.console(task)
        script = max((site.root / "runs" / task).glob("*/job.sbatch"), key=lambda path: path.stat().st_mtime)
        assert f"#SBATCH --exclude={nodes[0]}" in script.read_text()
    finally:
        site.slurm("scontrol", "update", "partitionname=main", "state=up")
        (site.root / "runs" / ".nodes.json").unlink(missing_ok=True)


def test_where_every_node_has_failed_tasks_run_anyway(site: Site) -> None:
    runs = RunsFolder(site.root / "runs")
    runs.nodes.parent.mkdir(parents=True, exist_ok=True)
    for name in ("n1", "n2", "n3"):
        for number in range(DEATHS):
            BadNodes(runs.nodes, SYSTEM).blame(name, Attempt(TaskId("0" * 32), AttemptId(f"{number:08}")))
    assert BadNodes(runs.nodes, SYSTEM).avoided() == ["n1", "n2", "n3"]
    try:
        task = serve(site, {"nodes": ""}).task("nodes", "print('ran')\n")
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
    finally:
        runs.nodes.unlink()


def test_a_process_on_a_node_that_slurm_takes_for_dead_makes_room_for_the_next_start(
    site: Site, slurm_cluster: Any
) -> None:
    """slurmd dies, the job's processes do not: Slurm starts the job again on another node."""
    served = serve(site, {"dead": ""})
    chatty = "for number in range(6000):\n    print('still', number, flush=True)\n    time.sleep(0.1)\n"
    task = served.task("dead", checkpoint(site, "dead", starts=1).replace("time.sleep(600)\n", chatty))
    job = site.begun(task, "start 0")
    where = node(site, job)
    pid = int((slurm_cluster.dir / "run" / f"{where}.mark").read_text())
    subprocess.run(["kill", "-9", str(pid)], check=True)
    try:
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
        first = (site.folder / "dead").read_text().split()[0]
        wait_until("the first process to be gone", lambda: Path(f"/proc/{first}").exists(), empty)
    finally:
        slurm_cluster.start()
    seen = site.lines(task)
    starts = [line for line in seen if line.startswith(("start ", "trained"))]
    assert starts == ["start 0", "start 1", "trained"]
    still = [index for index, line in enumerate(seen) if line.startswith("still ")]
    assert still
    assert still[-1] < seen.index("start 1")


def test_memory_that_runs_out_is_reported_with_figures(site: Site) -> None:
    served = serve(site, {"memory": ""})
    eat = "import time\nx = bytearray(700 * 1024 * 1024)\nprint('full', flush=True)\ntime.sleep(60)\n"
    task = served.task("memory", eat, memory_gb="0.25")
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert re.match(
        r"out of memory: used 0\.\d+ of 0\.25 GiB; ask for more with the user property memory_gb", site.reason(task)
    )
    assert site.reason(task) in site.console(task)


def test_a_job_that_cannot_be_launched_is_tried_again_and_then_given_up(site: Site, slurm_cluster: Any) -> None:
    served = serve(site, {"launch": ""})
    fails = slurm_cluster.dir / "prolog-fails"

    def repair() -> None:
        for name in site.drained():
            site.slurm("scontrol", "update", f"nodename={name}", "state=resume")

    fails.touch()
    try:
        task = served.task("launch", "print('ran')\n")
        wait_until("a node to be drained", site.drained)
        fails.unlink()
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
        assert "could not be started on its node (launch failed requeued held); it is tried again" in site.console(task)
        repair()
        fails.touch()
        hopeless = served.task("launch", "print('ran')\n", constraint="a100")

        def status_after_repair() -> TaskStatus:
            # Slurm drains a node whose prolog fails: they are repaired here, but not the cause.
            repair()
            return site.status(hopeless)

        wait_until("its end", status_after_repair, equals(TaskStatus.FAILED))
        assert "could not be started on its node (launch failed requeued held), 3 times" in site.reason(hopeless)
        assert site.reason(hopeless) in site.console(hopeless)
    finally:
        fails.unlink(missing_ok=True)
        repair()


def test_what_holds_a_waiting_job_is_reported_and_what_never_starts_is_failed(site: Site) -> None:
    served = serve(site, {"held": ""}, slurm='sbatch_args: ["--hold"]')
    held = served.task("held", "print('ran')\n")
    wait_until("the reason in its message", lambda: site.message(held), contains("scontrol release"))
    wait_until(
        "the reason in its console", lambda: site.console(held), contains("is waiting (JobHeldUser): it is held")
    )
    [job] = site.jobs(held)
    site.slurm("scontrol", "release", job)
    assert site.wait_for_end(held) is TaskStatus.COMPLETED

    before = site.slurm("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "exit 1").strip()
    served = serve(site, {"depends": ""}, slurm=f'sbatch_args: ["--dependency=afterok:{before}"]')
    never = served.task("depends", "print('never')\n")
    assert site.wait_for_end(never) is TaskStatus.FAILED
    assert "can never start (DependencyNeverSatisfied): a job that it depends on" in site.reason(never)
    wait_until("its job to be cancelled", lambda: site.jobs(never), empty)


def test_a_cancelled_job_says_who_and_when(site: Site) -> None:
    served = serve(site, {"cancel": ""})
    whole = {"num_gpus": "4", "constraint": "h100"}
    runs = served.task("cancel", SLEEP, **whole)
    jobs = [site.begun(runs)]
    waits = served.task("cancel", SLEEP, **whole)
    jobs += wait_until("a job", lambda: site.jobs(waits))
    site.slurm("scancel", *jobs)
    for task, job, words in zip((runs, waits), jobs, ("after 00:00:", "while it waited"), strict=True):
        assert site.wait_for_end(task) is TaskStatus.STOPPED
        by_whom_and_when = rf"job {job} was cancelled by \w+ at \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        assert re.match(f"Slurm {by_whom_and_when} .*{words}", site.reason(task))
        assert re.search(by_whom_and_when, site.console(task))


def test_sigterm_past_slurm_is_not_a_cancellation(site: Site) -> None:
    served = serve(site, {"term": ""})
    task = served.task("term", SLEEP)
    site.slurm("scancel", "--batch", "--signal=TERM", site.begun(task))
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert site.reason(task) == "the job received SIGTERM from outside the scheduler, which has no reason for it"


@pytest.fixture(autouse=True)
def no_daemon_outlives_its_test(site: Site) -> Any:
    yield
    site.cancel_all_jobs()
