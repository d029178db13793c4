"""Tasks of a queue on a real Grid Engine: they run to their end, and their jobs are cancelled with them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site
from waiting import contains, empty, wait_until

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.gridengine

SETTINGS = """
include "{server}"
hpc {{
    root: "{root}/{queue}"
    cache_dir: "{cache}"
    scratch_dir: "{root}/scratch"
    term_grace: 5
    lost_after: 60
    gridengine {{ memory_resource: "", accounting_delay: 3 }}
    resources {{ num_gpus: 2, num_cpus: 2, memory_gb: 1, time_limit: "00:10:00" }}
}}
"""
TASK = """
import os
print("gpus", os.environ["CUDA_VISIBLE_DEVICES"], "slots", os.environ["NSLOTS"], flush=True)
{then}
"""
WAITS = """
import signal, time
got = []
signal.signal(signal.SIGTERM, lambda *_: got.append(print("signalled", flush=True)))
print("begun", flush=True)
while not got:  # not signal.pause(), before which the signal may come
    time.sleep(0.1)
"""


@pytest.fixture
def site(clearml_server: Any, gridengine: Any, hpc_root: Path, hpc_cache: Path, tmp_path: Path) -> Iterator[Site]:
    queue = f"q-{uuid.uuid4().hex[:8]}"
    conf = tmp_path / "clearml.conf"
    conf.write_text(SETTINGS.format(server=clearml_server.conf, root=hpc_root, cache=hpc_cache, queue=queue))
    client = Client(load(conf, {}).settings.api)
    site = Site(
        env={
            **gridengine.env,
            **clearml_server.env,
            "PATH": gridengine.env["PATH"],
            "CLEARML_CONFIG_FILE": str(conf),
            "CLEARML_AGENT__hpc__scheduler": "gridengine",
            "HOME": str(tmp_path),
        },
        root=hpc_root / queue,
        peers=Path(os.environ.get("HPC_AGENT_PEERS", "")) / "bin",
        folder=tmp_path,
        conf=conf,
        queue=queue,
        queue_id=client.queues.resolve(queue, create=True),
        client=client,
    )
    yield site
    site.close()


def test_tasks_run_from_the_queue_to_their_end(site: Site) -> None:
    good, bad = (site.bare_task(TASK.format(then=then)) for then in ("", "raise SystemExit(3)"))
    site.daemon()
    assert site.wait_for_end(good) is TaskStatus.COMPLETED
    assert site.wait_for_end(bad) is TaskStatus.FAILED
    gpus = next(line for line in site.lines(good) if line.startswith("gpus"))
    assert gpus in ("gpus 0,1 slots 2", "gpus 2,3 slots 2")
    assert "through gridengine" in (site.folder / "daemon.log").read_text()
    assert "exit code 3" in site.reason(bad)


def test_aborting_a_task_ends_its_job(site: Site, gridengine: Any) -> None:
    task = site.bare_task(WAITS)
    site.daemon()
    wait_until("its first line", lambda: site.lines(task), contains("begun"))
    site.client.session.call("tasks.stop", {"task": task})
    wait_until("its job to end", lambda: gridengine.run("qstat"), empty)
    assert site.status(task) is TaskStatus.STOPPED


def test_a_task_taken_off_the_queue_has_its_job_deleted(site: Site, gridengine: Any) -> None:
    # All slots are taken, so that it waits.
    gridengine.run("qsub", "-b", "y", "-pe", "smp", "8", "-o", "/dev/null", "-j", "y", "-N", "others", "sleep", "600")
    wait_until("the slots to be taken", lambda: gridengine.run("qstat"), contains(" r "))
    task = site.bare_task(TASK.format(then=""))
    site.daemon()
    wait_until("its job", lambda: gridengine.run("qstat"), contains("qw"))
    wait_until("its reason", lambda: site.message(task), contains("waiting for its turn"))
    site.client.tasks.dequeue(task)
    wait_until("its job to go", lambda: "clearml_ta" not in gridengine.run("qstat"))
    gridengine.run("qdel", "others")
