"""Tasks on many nodes while ranks, nodes and jobs die: no line of any rank is lost, doubled or out of order."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from e2e_site import Site
from faults.troubled import Trouble, troubled
from job_processes import job_processes
from slurm_cluster.layout import step_above
from waiting import empty, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

COUNT = """
import os, time

rank = os.environ["RANK"]
ledger = os.open(os.path.join({folder!r}, rank), os.O_RDWR | os.O_CREAT | os.O_APPEND)
start = 1000 * sum(line == b"start" for line in os.pread(ledger, 1 << 20, 0).splitlines())
os.write(ledger, b"start\\n")
for number in range(start, start + {lines}):
    print("line", number, flush=True)
    os.write(ledger, b"%d\\n" % number)
    time.sleep(0.05)
    if number == start + {lines} - 1 and start == 0 and not os.path.exists({go!r}):
        for _ in range(12_000):
            os.write(ledger, b"waits\\n")
            time.sleep(0.05)
print("over", flush=True)
"""
"""Each rank writes down each line that it has printed, and its first start waits to be killed, which it writes too."""
LINES = 40
RANKS = 2
UNWRITTEN = 20
"""Lines of a second: the writer of a console puts what came within 0.3 s into the file at once."""


def started(site: Site, *, lines: int = LINES) -> tuple[TaskId, Path]:
    """A task of two ranks on two nodes that has printed some lines, and the folder of its ledgers."""
    folder = site.folder / "ledgers"
    folder.mkdir()
    task = site.bare_task(COUNT.format(folder=str(folder), lines=lines, go=str(site.folder / "go")), enqueue=False)
    site.properties(task, num_nodes=str(RANKS), num_cpus="1")
    site.client.tasks.enqueue(task, site.queue_id)
    wait_until("lines of both ranks", lambda: min(len(printed(folder, rank)) for rank in range(RANKS)) > 5)
    return task, folder


def printed(folder: Path, rank: int) -> list[int]:
    ledger = folder / str(rank)
    return [int(word) for word in ledger.read_text().split() if word.isdigit()] if ledger.exists() else []


def shown(site: Site, task: TaskId, rank: int) -> list[int]:
    """Numbers of the lines of a rank on the server."""
    prefix = "" if rank == 0 else rf"\[n\d:{rank}\] "
    return [int(found[1]) for line in site.lines(task) if (found := re.fullmatch(rf"{prefix}line (\d+)", line))]


def check_lines(site: Site, task: TaskId, folder: Path, *, exact: bool = True) -> None:
    """``exact``: no node died. What its ranks had printed last is lost with it, as is a last note in a ledger."""
    for rank in range(RANKS):
        seen, noted = shown(site, task, rank), printed(folder, rank)
        assert seen == sorted(set(seen)), f"rank {rank}"
        missing = sorted(set(noted) - set(seen))
        first_start = [line for line in noted if line < 1000]
        assert missing == first_start[len(first_start) - len(missing) :], f"rank {rank}"
        assert len(missing) <= (0 if exact else UNWRITTEN), f"rank {rank}"
        assert len(set(seen) - set(noted)) <= (0 if exact else 1), f"rank {rank}"


def ranks_on_n2(task: TaskId) -> list[psutil.Process]:
    found = job_processes(task, SLURMD_NODENAME="n2")
    return [process for process, environ in found if "HPC_AGENT_RANK_OF" in environ]


AGENT = """#!/bin/sh
# The agent of n2 cannot be started at its first time.
case "$*" in
*--node-of*) [ "$SLURMD_NODENAME" = n2 ] && mkdir {folder}/once 2>/dev/null && exit 7 ;;
esac
exec {python} -m hpc_agent "$@"
"""


def test_an_agent_that_could_not_be_started_is_started_again(site: Site) -> None:
    agent = site.folder / "agent"
    agent.write_text(AGENT.format(folder=site.folder, python=sys.executable))
    agent.chmod(0o755)
    site.configure(f'hpc {{ agent_command: ["{agent}"] }}')
    (site.folder / "go").touch()
    site.daemon()
    task, folder = started(site)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert (
        "Starting the agents of the nodes again: the agents of the task's nodes ended before all were ready"
        in site.console(task)
    )
    check_lines(site, task, folder)


def test_a_rank_is_killed(site: Site) -> None:
    site.daemon()
    task, folder = started(site)
    for process in ranks_on_n2(task):
        process.kill()
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert site.reason(task).startswith("worker execution was ended by SIGKILL: rank 1 on n2")
    check_lines(site, task, folder, exact=False)


def test_all_of_a_job_is_killed_at_once(site: Site) -> None:
    """As by a kernel out of memory: no agent is left, and the daemon sends what they have left on disk."""
    site.daemon()
    task, folder = started(site)
    for process, _ in [*job_processes(task)]:
        with suppress(psutil.Error):
            # Those that write what has been printed live on, as they do at the end of any agent.
            if not {"console_writer.py", "rank_output.py"} & {Path(word).name for word in process.cmdline()}:
                process.kill()
    assert site.wait_for_end(task) is TaskStatus.FAILED
    check_lines(site, task, folder, exact=False)


def test_a_requeued_job(site: Site) -> None:
    site.daemon()
    task, folder = started(site)
    [job] = site.jobs(task)
    site.slurm("scontrol", "requeue", job)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    check_lines(site, task, folder, exact=False)
    assert all(max(shown(site, task, rank)) == 1000 + LINES - 1 for rank in range(RANKS))


@contextmanager
def without_node(site: Site, slurm_cluster: Any, *, name: str = "n2", dead: TaskId | None) -> Iterator[None]:
    """Its slurmd is gone, and Slurm has given it up; with all processes of the task ``dead`` too."""
    os.kill(int((slurm_cluster.dir / "run" / f"{name}.mark").read_text()), signal.SIGKILL)
    try:
        if dead:
            kill_processes_on(name, dead)
        site.slurm("scontrol", "update", f"nodename={name}", "state=down", "reason=test")
        yield
    finally:
        slurm_cluster.start()
        wait_until(f"{name} to be back", lambda: site.resumed(name))


def kill_processes_on(node: str, task: TaskId) -> None:
    """And slurmstepd above them. All at once: one that sees another die would still report it."""
    pids = [process.pid for process, _ in job_processes(task, SLURMD_NODENAME=node)]
    above = {step for pid in pids if (step := step_above(pid))}
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (*above, *pids):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def test_a_node_dies_and_the_task_goes_on_on_others(site: Site, slurm_cluster: Any) -> None:
    """The second of the job's nodes, with all that runs on it: Slurm starts the job again where there are nodes."""
    site.daemon()
    task, folder = started(site)
    with without_node(site, slurm_cluster, dead=task):
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
    check_lines(site, task, folder, exact=False)
    assert all(max(shown(site, task, rank)) == 1000 + LINES - 1 for rank in range(RANKS))
    assert any(line.startswith("[n3:1] ") for line in site.lines(task))


def test_ranks_that_have_ended_are_not_run_again(site: Site, clearml_server: Any, slurm_cluster: Any) -> None:
    """The first node dies while the others wait for a server that takes no output: by then their end is on disk."""
    (site.folder / "go").touch()
    with troubled(clearml_server.url) as proxy:
        proxy.choose = {"events.add_batch": Trouble.UNAVAILABLE}.get
        site.daemon(**site.through(proxy.url))
        task, folder = started(site)
        wait_until("its end to be written down", lambda: [*(site.root / "runs" / task).glob("*/exit.json")])
        assert [*job_processes(task, SLURMD_NODENAME="n2")], "its nodes had sent all before"
        with without_node(site, slurm_cluster, name="n1", dead=task):
            proxy.choose = lambda _endpoint: None
            assert site.wait_for_end(task) is TaskStatus.COMPLETED
    for rank in range(RANKS):
        assert (folder / str(rank)).read_text().count("start") == 1
    check_lines(site, task, folder, exact=False)


def test_a_node_dies_and_the_task_ends_where_its_queue_allows_no_restart(site: Site, slurm_cluster: Any) -> None:
    site.configure(f'hpc {{ queues {{ "{site.queue}" {{ max_restarts: 0 }} }} }}')
    site.daemon()
    task, folder = started(site)
    with without_node(site, slurm_cluster, dead=task):
        assert site.wait_for_end(task) is TaskStatus.FAILED
    assert re.search(r"^node \S+ failed", site.reason(task)), site.reason(task)
    check_lines(site, task, folder, exact=False)


def test_ranks_on_a_node_that_slurm_has_given_up_end_with_their_job(site: Site, slurm_cluster: Any) -> None:
    """The node has lost its slurmd only: its rank must not live on next to the one that is started elsewhere."""
    site.daemon()
    task, folder = started(site)
    with without_node(site, slurm_cluster, dead=None):
        wait_until("the end of the rank on n2", lambda: ranks_on_n2(task), empty)
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
    before, second = (folder / "1").read_text().split("start\n")[1:]
    assert "waits" in before and "waits" not in second
    for rank in range(RANKS):
        seen = shown(site, task, rank)
        assert seen == sorted(set(seen)) and seen[-1] == 1000 + LINES - 1


def test_ranks_on_a_node_that_slurm_has_given_up_end_with_their_task(site: Site, slurm_cluster: Any) -> None:
    """Where its queue allows no restart."""
    site.configure(f'hpc {{ queues {{ "{site.queue}" {{ max_restarts: 0 }} }} }}')
    site.daemon()
    task, _ = started(site)
    with without_node(site, slurm_cluster, dead=None):
        assert site.wait_for_end(task) is TaskStatus.FAILED
        wait_until("the end of the rank on n2", lambda: ranks_on_n2(task), empty)
