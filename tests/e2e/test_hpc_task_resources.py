"""``hpc-task`` with resources: user properties that the job asks Slurm for, checked before the task is created."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from e2e_site import Site

from hpc_agent.cli.task_resources import LAUNCH, RESOURCES
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.launch_plan import LAUNCH_PROPERTIES
from hpc_agent.domain.resources import PROPERTY_FIELDS
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm]

ASKS = """
import os, subprocess
job = os.environ["SLURM_JOB_ID"]
print(subprocess.run(["squeue", "-h", "-j", job, "-o", "limit %l partition %P"], capture_output=True, text=True).stdout)
"""


def hpc_task(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    (site.folder / "asks.py").write_text(ASKS)
    first = ["--project", "e2e", "--name", "asks", "--script", "asks.py", "--skip-task-init", "--force-no-requirements"]
    return subprocess.run(
        [sys.executable, "-c", "from hpc_agent.cli.task import main; main()", *first, *words],
        env=site.env,
        cwd=site.folder,
        text=True,
        capture_output=True,
        timeout=240,
        check=False,
    )


def tasks(site: Site) -> list[dict[str, Any]]:
    query = {"name": "^asks$", "only_fields": ["id", "execution.queue"]}
    found: list[dict[str, Any]] = site.client.session.call("tasks.get_all", query)["tasks"]
    return [task for task in found if task.get("execution", {}).get("queue") == site.queue_id]


def test_each_resource_of_a_task_has_a_flag() -> None:
    assert list(RESOURCES) == list(PROPERTY_FIELDS)
    assert list(LAUNCH) == list(LAUNCH_PROPERTIES)


def test_the_job_asks_slurm_for_what_the_flags_say(site: Site) -> None:
    site.daemon()
    done = hpc_task(site, "--time-limit", "0:07:00", "--partition", "main", "--queue", site.queue, "--follow")
    assert done.returncode == 0, done.stderr
    assert "limit 7:00 partition main" in done.stdout
    assert done.stderr.count("warning") == 0
    [task] = tasks(site)
    properties = site.client.tasks.get(TaskId(task["id"])).properties
    asked = {name: value for name, value in properties.items() if not name.startswith("hpc_")}
    assert asked == {"time_limit": "0:07:00", "partition": "main"}


def test_the_job_has_the_nodes_and_ranks_that_the_flags_say(site: Site) -> None:
    site.daemon()
    ranks = ["--num-nodes", "2", "--num-cpus", "2", "--launcher", "srun", "--ranks-per-node", "2"]
    done = hpc_task(site, *ranks, "--queue", site.queue, "--follow")
    assert done.returncode == 0, done.stderr
    lines = [line.partition("limit ")[0] for line in done.stdout.splitlines() if "partition main" in line]
    assert sorted(lines) == ["", "[n1:1] ", "[n2:2] ", "[n2:3] "]
    assert done.stderr.count("warning") == 0


@pytest.mark.parametrize(
    ("flag", "name", "value"),
    [("--num-gpus", "num_gpus", "5"), ("--partition", "partition", "huge"), ("--memory-gb", "memory_gb", "64")],
)
def test_a_resource_that_the_queue_refuses_gets_the_sentence_of_its_daemon(
    site: Site, flag: str, name: str, value: str
) -> None:
    done = hpc_task(site, flag, value, "--queue", site.queue)
    assert done.returncode == 2
    assert tasks(site) == []
    refused = site.bare_task("print('never')\n", enqueue=False)
    site.properties(refused, **{name: value})
    site.client.tasks.enqueue(refused, site.queue_id)
    site.daemon()
    assert site.wait_for_end(refused) is TaskStatus.FAILED
    sentence = done.stderr.strip().removeprefix("error: ")
    assert sentence in site.reason(refused)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--num-gpus", "two"), 'num_gpus is "two", expected a whole number of at most 9 digits'),
        (("--num-nodes", "0"), "num_nodes is 0, but every queue allows no less than 1"),
        (("--time-limit", "soon"), 'time_limit is "soon", expected minutes or Slurm\'s D-HH:MM:SS'),
        (("--memory-gb", "64G"), 'memory_gb is "64G", expected a number of GiB such as 32 or 0.5'),
        (("--partition", "a b"), 'partition is "a b", expected a Slurm name without spaces'),
        (("--launcher", "slurm"), 'launcher is "slurm", expected one of: srun, torchrun, accelerate, mpirun, none'),
        (("--ranks-per-node", "0"), 'ranks_per_node is "0", expected the number of ranks on each node, from 1 to 1024'),
    ],
)
def test_a_value_that_no_queue_takes_is_wrong_usage(site: Site, words: tuple[str, str], sentence: str) -> None:
    done = hpc_task(site, *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")


def test_of_a_queue_that_is_not_configured_here_what_its_daemon_decides_is_named(site: Site) -> None:
    queue = f"{site.queue}-elsewhere"
    site.client.queues.resolve(queue, create=True)
    done = hpc_task(site, "--partition", "a100", "--num-gpus", "2", "--queue", queue)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        f'warning: hpc.queues has no block for "{queue}" on this machine: the daemon that serves it decides whether a '
        "task may set partition\n"
    )


def test_a_copy_takes_new_resources_and_those_of_its_base_are_checked_too(site: Site) -> None:
    base = site.bare_task("print('base')\n", enqueue=False)
    site.properties(base, num_gpus="8", color="blue")
    words = ["--base-task-id", base, "--time-limit", "5", "--queue", site.queue]
    run = [sys.executable, "-c", "from hpc_agent.cli.task import main; main()", "--name", "asks", *words]

    def copy(*more: str) -> subprocess.CompletedProcess[str]:
        argv = [*run, *more]
        return subprocess.run(argv, env=site.env, text=True, capture_output=True, timeout=120, check=False)

    refused = copy()
    assert (refused.returncode, tasks(site)) == (2, [])
    assert f'num_gpus is 8, but queue "{site.queue}" allows at most 4' in refused.stderr
    assert copy("--num-gpus", "1").returncode == 0
    [task] = tasks(site)
    assert site.client.tasks.get(TaskId(task["id"])).properties == {
        "num_gpus": "1",
        "color": "blue",
        "time_limit": "5",
    }
