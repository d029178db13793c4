"""scripts/examples: programs that go on from their checkpoints, preempted and out of time on a real Slurm."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import pytest
from e2e_site import Site
from served_queues import Served, serve
from torch_site import torch_site
from waiting import HANG_S, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers, pytest.mark.torch]

EXAMPLES = Path(__file__).parents[2] / "scripts" / "examples"
HPC_TASK = (sys.executable, "-c", "from hpc_agent.cli.task import main; main()")
STEPS = 40
PREFIX = {"checkpoint_pytorch.py": "epoch", "checkpoint_lightning.py": "epoch", "checkpoint.sh": "step"}
"""Example → how its lines of a finished epoch or step begin."""


@pytest.fixture
def with_torch(site: Site) -> Site:
    """The site, with PyTorch and Lightning for its tasks' Python."""
    torch = torch_site()
    variables = "\n".join(f'{name}: "{value}"' for name, value in torch.environment.items())
    site.configure(
        f'agent.extra_python_path: "{torch.python_path}"\nenvironment {{ {variables} }}\nhpc.term_grace: 60\n'
        "sdk.development.report_use_subprocess: false"
    )
    return site


def example_tasks(
    served: Served, queue: str, names: Collection[str], seconds: float, *resources: str
) -> dict[str, TaskId]:
    """Examples of forty epochs or steps of so many seconds, created and enqueued by hpc-task."""
    site = served.site
    found = {}
    for name in names:
        text = (EXAMPLES / name).read_text()
        how = []
        if name.endswith(".py"):
            # Lightning's example waits in each of its four batches.
            wait = seconds / 4 if "lightning" in name else seconds
            how = ["--packages", "clearml", "--skip-task-init", "--args", f"epochs={STEPS}", f"seconds={wait}"]
        else:
            text = text.replace("${STEPS:-20}", str(STEPS)).replace("${SECONDS_PER_STEP:-1}", str(seconds))
        (site.folder / name).write_text(text)
        argv = [*HPC_TASK, "--project", "e2e", "--name", name, "--script", name, "--queue", served.ids[queue]]
        done = subprocess.run(
            [*argv, *how, *resources],
            env=site.env,
            cwd=site.folder,
            text=True,
            capture_output=True,
            timeout=120,
        )
        match = re.search(r"[0-9a-f]{32}", done.stdout)
        assert match and not done.returncode, done.stdout + done.stderr
        found[name] = TaskId(match[0])
    return found


def numbers(site: Site, task: TaskId, prefix: str) -> list[int]:
    """Numbers of the epochs or steps that its console has finished lines of.

    Such a line may come after another text: a thread of the SDK prints too, and the end of its line comes later.
    """
    return [int(number) for number in re.findall(rf"{prefix} (\d+)(?:: loss| done)", site.console(task))]


def check_trained_once(site: Site, tasks: Mapping[str, TaskId]) -> None:
    """Each went on from where it was: no epoch is missing, none was trained again from the beginning."""
    for name, task in tasks.items():
        assert site.wait_for_end(task, timeout=3 * HANG_S) is TaskStatus.COMPLETED, name
        seen = site.console(task)
        begins = re.findall(r"^begins with (.*)$", seen, re.MULTILINE)
        # A busy machine may need a third start, and Lightning's checkpoint of an interruption has one name.
        assert len(begins) > 1 and (len(begins) == len(set(begins)) or "interrupted" in begins[-1]), (name, begins)
        assert re.search(r"^stopped (in|after) (epoch|step) \d+$", seen, re.MULTILINE), name
        first = 1 if name == "checkpoint.sh" else 0
        assert numbers(site, task, PREFIX[name]) == list(range(first, STEPS + first)), name
        if name.endswith(".py"):
            assert site.read_back(task)["scalars"]["loss"]["train"]["x"] == list(range(STEPS)), name


@pytest.mark.parametrize("name", PREFIX)
def test_an_example_goes_on_after_a_preemption(with_torch: Site, name: str) -> None:
    served = serve(with_torch, {"p": ""})
    resources = ("--partition", "scavenge", "--constraint", "h100", "--num-gpus", "1")
    tasks = example_tasks(served, "p", [name], 1.0, *resources)
    seen = partial(numbers, with_torch, tasks[name], PREFIX[name])
    wait_until(f"two epochs of {name}", seen, lambda finished: len(finished) > 1)
    with_torch.slurm(
        *("sbatch", "-o", "/dev/null", "-p", "urgent", "--gres=gpu:4", "--exclusive", "-C", "h100", "--wrap=sleep 20")
    )
    check_trained_once(with_torch, tasks)
    assert re.search(r"^Restart 1 of job", with_torch.console(tasks[name]), re.MULTILINE)


def test_the_examples_go_on_after_a_time_limit(with_torch: Site) -> None:
    # 100 seconds a start for two minutes of work: a busy machine takes a third of that to import PyTorch.
    served = serve(with_torch, {"limit": "on_time_limit: requeue, signal_ahead: 20, max_restarts: 20"})
    tasks = example_tasks(served, "limit", PREFIX, 3.0, "--time-limit", "2")
    check_trained_once(with_torch, tasks)
    for task in tasks.values():
        assert "Stopping: its time limit is near; SIGTERM" in with_torch.console(task)
