"""The server is away, restarts, or is behind a proxy that answers nonsense: nothing is lost, nothing doubled."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site
from faults.troubled import Trouble, troubled
from waiting import contains, equals, wait_until

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

COUNTS = """
import sys, time
print("started", flush=True)
for number in range({lines}):
    print("line", number, flush=True)
    time.sleep({pause})
sys.exit({code})
"""
SLEEP = "import time\nprint('started', flush=True)\ntime.sleep(600)\n"


def counts(lines: int, pause: float, code: int = 0) -> str:
    return COUNTS.format(lines=lines, pause=pause, code=code)


def on(site: Site, server: Any) -> Site:
    """The same site with a server of its own."""
    conf = site.folder / "own.conf"
    conf.write_text(site.conf.read_text().replace(site.conf.read_text().split('"')[1], str(server.conf), 1))
    client = Client(load(conf, {}).settings.api)
    queue = client.queues.resolve(site.queue, create=True)
    env = {**site.env, "CLEARML_CONFIG_FILE": str(conf)}
    return replace(site, env=env, conf=conf, client=client, queue_id=queue)


def numbered(site: Site, task: TaskId) -> list[str]:
    return [line for line in site.console(task).splitlines() if line.startswith(("started", "line "))]


def expected(lines: int) -> list[str]:
    return ["started", *(f"line {number}" for number in range(lines))]


def test_a_third_of_all_answers_may_be_nonsense(site: Site, clearml_server: Any) -> None:
    dice = random.Random(4)
    with troubled(clearml_server.url) as proxy:
        proxy.choose = lambda _endpoint: dice.choice([*Trouble]) if dice.random() < 0.33 else None
        tasks = [site.bare_task(counts(60, 0.1, code)) for code in (0, 0, 3)]
        aborted = site.bare_task(SLEEP)
        site.daemon(**site.through(proxy.url))
        wait_until("its first line", lambda: site.lines(aborted), contains("started"))
        # A server that has heard of no worker of a running task stops it by itself, at once, and gives no reason.
        wait_until("its worker", lambda: bool(site.client.tasks.get_states([aborted])[aborted].last_worker))
        site.client.session.call("tasks.stop", {"task": aborted})
        ends = [site.wait_for_end(task) for task in tasks]
        assert ends == [TaskStatus.COMPLETED, TaskStatus.COMPLETED, TaskStatus.FAILED]
        assert site.wait_for_end(aborted) is TaskStatus.STOPPED
        for task in tasks:
            wait_until("all of its lines", partial(numbered, site, task), lambda found: len(found) >= 61)
        assert len(proxy.met) == len(Trouble)
    for task in tasks:
        assert numbered(site, task) == expected(60)
    assert site.reason(tasks[2]) == "worker execution exit code 3"
    assert site.reason(aborted) == "aborted by its user"


def test_a_server_that_dies_and_comes_back_finds_all_that_happened_meanwhile(
    site: Site, start_clearml_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_clearml_server()
    site = on(site, server)
    ends_meanwhile = site.bare_task(counts(40, 0.2))
    fails_meanwhile = site.bare_task(counts(40, 0.2, 5))
    cancelled_meanwhile = site.bare_task(SLEEP)
    goes_on = site.bare_task(counts(500, 0.2))
    running = (ends_meanwhile, fails_meanwhile, cancelled_meanwhile, goes_on)
    site.daemon()
    for task in running:
        wait_until("its first line", partial(site.lines, task), contains("started"))
    [job] = site.jobs(cancelled_meanwhile)
    waits = site.bare_task("print('started')\n")

    server.kill()
    site.slurm("scancel", job)
    # The executors of what ends now wait for a minute and leave the rest to the daemon.
    own = [f"clearml_task_{task}_" for task in (ends_meanwhile, fails_meanwhile, cancelled_meanwhile)]

    def left() -> bool:
        return not any(name.startswith(tuple(own)) for name in site.slurm("squeue", "-h", "-o", "%j").split())

    wait_until("their jobs to leave", left)
    port = int(server.url.rpartition(":")[2])
    start_clearml_server(server.data_dir, port=port)

    assert site.wait_for_end(ends_meanwhile) is TaskStatus.COMPLETED
    assert site.wait_for_end(fails_meanwhile) is TaskStatus.FAILED
    assert site.reason(fails_meanwhile) == "worker execution exit code 5"
    assert site.wait_for_end(cancelled_meanwhile) is TaskStatus.STOPPED
    assert "was cancelled by" in site.reason(cancelled_meanwhile)
    assert site.wait_for_end(waits) is TaskStatus.COMPLETED
    assert site.wait_for_end(goes_on) is TaskStatus.COMPLETED
    for task, lines in ((ends_meanwhile, 40), (fails_meanwhile, 40), (goes_on, 500)):
        # A status does not wait for the console; the daemon sends what an executor could not.
        wait_until("all of its lines", partial(numbered, site, task), equals(expected(lines)))
