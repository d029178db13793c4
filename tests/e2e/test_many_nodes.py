"""Tasks on many nodes of a real Slurm: their ranks' variables and lines, what ends one rank or all, who starts them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import fake_nvml
import psutil
import pytest
from capabilities import missing
from e2e_site import Site
from job_processes import job_processes
from torch_site import accelerate_path, torch_site
from waiting import equals, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

SHOW = """
import json, os, socket
names = (
    "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE NODE_RANK NNODES MASTER_ADDR MASTER_PORT SLURMD_NODENAME "
    "CLEARML_MULTI_NODE_SINGLE_TASK"
)
print("variables", json.dumps({name: os.environ.get(name) for name in names.split()}), os.path.exists(__file__))
"""
UNTIL_TERM = """
import os, signal, sys, time

def save(*_):
    print("saving", os.environ["RANK"], flush=True)
    time.sleep(0.5)
    print("saved", os.environ["RANK"], flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, save)
print("begun", os.environ["RANK"], flush=True)
while not os.path.exists({go!r}):
    time.sleep(0.1)
print("over", os.environ["RANK"], flush=True)
"""
"""Until it is signalled, or a file ``go`` is there."""
RING = """
import os, socket

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if rank == 0:
    with socket.create_server(("", address[1]), backlog=size) as server:
        found = []
        for _ in range(size - 1):
            connection, _ = server.accept()
            with connection:
                found.append(int(connection.makefile().readline()))
    print("sum", sum(found), flush=True)
else:
    import time
    while True:
        try:
            with socket.create_connection(address) as connection:
                connection.sendall(f"{{rank}}\\n".encode())
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    print("sent", rank, flush=True)
"""


def task_of(
    site: Site, text: str, *, nodes: int = 2, script: dict[str, Any] | None = None, **properties: str
) -> TaskId:
    task = site.bare_task(text, enqueue=False, **(script or {}))
    site.properties(task, num_nodes=str(nodes), num_cpus="2", **properties)
    site.client.tasks.enqueue(task, site.queue_id)
    return task


def begun(site: Site, task: TaskId, ranks: int = 4) -> str:
    """Wait until all ranks have begun; returns their job."""

    def count() -> int:
        return sum("begun" in line for line in site.lines(task))

    wait_until(f"{ranks} ranks of {task}", count, equals(ranks))
    [job] = site.jobs(task)
    return job


def waiting(site: Site) -> str:
    return UNTIL_TERM.format(go=str(site.folder / "go"))


def own(prefix: str, lines: list[str]) -> list[str]:
    return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]


def kill_agent(task: TaskId, *, of_node: str = "") -> None:
    """Kill the agent of this node, or the first agent."""
    for process, environ in job_processes(task):
        with suppress(psutil.Error):
            words = process.cmdline()
            if "hpc_agent" not in words or "srun" in words[0] or ("--node-of" in words) != bool(of_node):
                continue
            if of_node in ("", environ.get("SLURMD_NODENAME")):
                process.kill()


def test_every_rank_knows_its_place_and_prints_under_its_name(site: Site) -> None:
    site.daemon()
    task = task_of(site, SHOW, ranks_per_node="2")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    lines = site.lines(task)
    shown = {}
    for line in lines:
        if match := re.fullmatch(r"(\[n\d:\d\] )?variables (\{.*\}) True", line):
            values = json.loads(match[2])
            shown[values["RANK"]] = match[1] or "", values
    assert [shown[str(rank)][0] for rank in range(4)] == [
        "",
        *(f"[{shown[str(r)][1]['SLURMD_NODENAME']}:{r}] " for r in (1, 2, 3)),
    ]
    places = [tuple(shown[str(rank)][1][name] for name in ("NODE_RANK", "LOCAL_RANK")) for rank in range(4)]
    assert places == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    assert {(found["WORLD_SIZE"], found["LOCAL_WORLD_SIZE"], found["NNODES"]) for _, found in shown.values()} == {
        ("4", "2", "2")
    }
    [(address, port)] = {(found["MASTER_ADDR"], found["MASTER_PORT"]) for _, found in shown.values()}
    assert not address.startswith("127.0.1") and 20000 <= int(port) < 30000
    assert [shown[str(rank)][1]["CLEARML_MULTI_NODE_SINGLE_TASK"] for rank in range(4)] == ["2", "-1", "2", "-1"]
    properties = site.client.tasks.get(task).properties
    assert properties["hpc_job"].endswith("and 1 more nodes")


def test_each_node_has_a_rank_for_each_gpu(site: Site) -> None:
    text = "import os\nprint(os.environ['RANK'], 'sees', os.environ['CUDA_VISIBLE_DEVICES'])"
    site.daemon()
    task = task_of(site, text, num_gpus="2")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    lines = site.lines(task)
    for rank, prefix in enumerate(("", "[n1:1] ", "[n2:2] ", "[n2:3] ")):
        assert f"{prefix}{rank} sees 0,1" in lines


@pytest.mark.compiler
def test_the_gpus_of_all_nodes_are_in_the_tasks_figures(site: Site) -> None:
    """Each node's GPU 0 is at 5 %, its GPU 1 at 15 %."""
    variables = fake_nvml.build(site.folder, 4)
    agent = site.folder / "agent"
    exports = "".join(f'export {name}="{value}"\n' for name, value in variables.items())
    agent.write_text(f'#!/bin/sh\n{exports}exec {sys.executable} -m hpc_agent "$@"\n')
    agent.chmod(0o755)
    site.configure(f'hpc {{ agent_command: ["{agent}"] }}')
    site.daemon()
    task = task_of(site, "import time; time.sleep(6)", num_gpus="2", ranks_per_node="1")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    properties = site.client.tasks.get(task).properties
    assert properties["hpc_used_gpus"] == "0.4 of 4 GPUs (10%)"
    assert properties["hpc_used_gpu_memory"] == "2 of 16 GiB (12%)"
    [chart] = site.client.session.call("events.get_task_plots", {"task": task})["plots"]
    lines = {line["name"]: line["y"] for line in json.loads(chart["plot_str"])["data"]}
    assert {name: set(values) for name, values in lines.items() if "GPU (" in name} == {
        "n1 GPU (of 2 GPUs)": {10.0},
        "n2 GPU (of 2 GPUs)": {10.0},
    }


def test_ranks_reach_each_other_and_two_tasks_at_once_do_not_meet(site: Site) -> None:
    site.daemon()
    tasks = [task_of(site, RING.format(), ranks_per_node=ranks, nodes=2) for ranks in ("1", "2")]
    for task, expected in zip(tasks, ("sum 1", "sum 6"), strict=True):
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
        assert expected in site.lines(task)


def test_a_rank_that_fails_ends_all_and_the_task_has_its_words(site: Site) -> None:
    text = f"import os, sys\nif os.environ['RANK'] == '3': sys.exit('no data for rank 3')\n{waiting(site)}"
    site.daemon()
    task = task_of(site, text, ranks_per_node="2")
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert site.reason(task) == "worker execution exit code 1: rank 3 on n2: no data for rank 3"


def test_a_rank_that_is_killed_ends_all(site: Site) -> None:
    site.daemon()
    task = task_of(site, waiting(site), ranks_per_node="2")
    begun(site, task)
    for process, _ in job_processes(task, RANK="2"):
        process.kill()
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert site.reason(task).startswith("worker execution was ended by SIGKILL: rank 2 on n2: killed by SIGKILL")
    assert site.reason(task).endswith("its last words: begun 2")


def saved(site: Site, task: TaskId, ranks: int = 4) -> None:
    """Every rank was signalled once, and got the time to save."""
    lines = [re.sub(r"^\[n\d:\d\] ", "", line) for line in site.lines(task)]
    for rank in range(ranks):
        assert lines.count(f"saving {rank}") == lines.count(f"saved {rank}") == 1, site.console(task)


def test_an_abort_reaches_all_ranks(site: Site) -> None:
    site.daemon()
    task = task_of(site, waiting(site), ranks_per_node="2")
    begun(site, task)
    site.client.session.call("tasks.stop", {"task": task})
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert site.reason(task) == "aborted by its user"
    saved(site, task)


def test_a_cancelled_job_lets_all_ranks_save(site: Site) -> None:
    site.daemon()
    task = task_of(site, waiting(site), ranks_per_node="2")
    site.slurm("scancel", begun(site, task))
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert "was cancelled by" in site.reason(task)
    saved(site, task)


def test_the_time_limit_reaches_all_ranks_ahead(site: Site) -> None:
    site.daemon()
    task = task_of(site, waiting(site), ranks_per_node="2", time_limit="00:01:00")
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert site.reason(task).startswith("time limit 00:01:00 reached")
    saved(site, task)


def test_a_requeued_job_goes_on_on_all_nodes(site: Site) -> None:
    site.daemon()
    task = task_of(site, waiting(site))
    job = begun(site, task, 2)
    site.slurm("scontrol", "requeue", job)
    wait_until("all ranks again", lambda: sum("begun" in line for line in site.lines(task)), equals(4))
    (site.folder / "go").touch()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    lines = site.lines(task)
    assert lines.count("begun 0") == lines.count("[n2:1] begun 1") == 2
    assert lines.count("over 0") == lines.count("[n2:1] over 1") == 1
    assert f"Restart 1 of job {job}" in lines


def test_a_step_that_slurm_ends_by_mistake_after_a_requeue_does_not_fail_the_task(site: Site) -> None:
    site.daemon()
    task = task_of(site, waiting(site))
    job = begun(site, task, 2)
    site.slurm("scontrol", "requeue", job)
    wait_until("all ranks again", lambda: sum("begun" in line for line in site.lines(task)), equals(4))
    # What slurmctld sends here a minute after a node gave no answer, for the same step of the job's start before.
    steps = site.slurm("squeue", "-h", "-s", "-o", "%i", "-j", job).split()
    ranks = max(int(number) for step in steps if (number := step.partition(".")[2]).isdigit())
    site.slurm("scancel", f"{job}.{ranks}")
    wait_until("all ranks in another job", lambda: sum("begun" in line for line in site.lines(task)), equals(6))
    (site.folder / "go").touch()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert site.jobs(task) != [job]


def test_the_death_of_a_nodes_agent_ends_the_task_and_names_the_node(site: Site) -> None:
    site.daemon()
    task = task_of(site, waiting(site))
    begun(site, task, 2)
    kill_agent(task, of_node="n2")
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert site.reason(task) == "worker execution exit code 1: the agent of node n2 ended, and the ranks with it"
    assert "[n2:1] begun 1" in site.lines(task)


def test_the_death_of_the_first_agent_loses_no_line(site: Site) -> None:
    site.daemon()
    task = task_of(site, waiting(site))
    begun(site, task, 2)
    kill_agent(task)
    assert site.wait_for_end(task) is TaskStatus.FAILED
    lines = site.lines(task)
    assert lines.count("begun 0") == lines.count("[n2:1] begun 1") == 1
    wait_until("an end of its processes", lambda: list(job_processes(task)), equals([]))


def test_a_node_that_cannot_run_the_task_is_named_and_no_rank_starts(site: Site) -> None:
    site.daemon()
    task = site.bare_task(SHOW, enqueue=False, entry_point="-m no.such.module", working_dir=".", diff="")
    site.properties(task, num_nodes="2", num_cpus="1")
    site.client.tasks.enqueue(task, site.queue_id)
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "rank 0 on n1" in site.reason(task) or "rank 1 on n2" in site.reason(task)


def test_with_launcher_none_the_task_starts_its_own_steps(site: Site) -> None:
    text = f"{SHOW}\nimport subprocess\nsubprocess.run(['srun', '--overlap', '-N2', '-n2', 'echo', 'of the task'])"
    site.daemon()
    task = task_of(site, text, launcher="none")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    lines = site.lines(task)
    assert lines.count("of the task") == 2
    [shown] = [line for line in lines if line.startswith("variables")]
    assert '"RANK": null' in shown and '"NNODES": "2"' in shown


def test_a_wrong_launcher_is_refused_before_a_job_is_submitted(site: Site) -> None:
    site.daemon()
    tasks = [task_of(site, SHOW, launcher="slurm"), task_of(site, SHOW, ranks_per_node="two")]
    for task, words in zip(tasks, ("launcher is", "ranks_per_node is"), strict=True):
        assert site.wait_for_end(task) is TaskStatus.FAILED
        assert site.reason(task).startswith(words) and not site.jobs(task)


# ---------------------------------------------------------------- ClearML's own ways


def test_the_sdks_launch_multi_node_starts_tasks_that_find_each_other(site: Site) -> None:
    text = f"""
import os
from clearml import Task

task = Task.init()
found = task.launch_multi_node(2, wait=False)
print("node", found["node_rank"], "of", os.environ["WORLD_SIZE"], os.environ["MASTER_PORT"] != "29500", flush=True)
{RING.format()}
"""
    site.daemon()
    task = site.script_task(text, "--name", "multi")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "sum 1" in site.lines(task) and "node 0 of 2 True" in site.lines(task)
    [other] = children(site, task)
    assert site.wait_for_end(other) is TaskStatus.COMPLETED
    assert "sent 1" in site.lines(other)


def children(site: Site, task: TaskId) -> list[TaskId]:
    answer = site.client.session.call("tasks.get_all", {"only_fields": ["id", "parent"]})
    return [TaskId(found["id"]) for found in answer["tasks"] if found.get("parent") == task]


SINGLE_TASK = """\
{% extends "gpu.sbatch.j2" %}
{% block launch -%}
export CLEARML_MULTI_NODE_SINGLE_TASK=1
srun --ntasks-per-node=1 {{ agent }} execute --id {{ task.id | quote }} --require-queue {{ flags }}
{% endblock %}
"""


def test_the_glues_single_task_runs_on_all_nodes_of_its_step(site: Site) -> None:
    template = site.folder / "glue.sbatch.j2"
    template.write_text(SINGLE_TASK)
    site.configure(f'hpc {{ queues {{ "{site.queue}" {{ template: "{template}" }} }} }}')
    site.daemon()
    task = task_of(site, SHOW)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    shown = [line for line in site.lines(task) if "variables" in line]
    assert len(shown) == 2 and any(line.startswith("[n2:1] ") for line in shown)
    assert all('"CLEARML_MULTI_NODE_SINGLE_TASK": "1"' in line for line in shown)


def test_all_ranks_are_one_task_to_the_sdk(site: Site) -> None:
    text = """
import os
from clearml import Task

task = Task.init()
print("task", task.id, task.get_parameter("Args/lr"), flush=True)
if os.environ["RANK"] == "0":
    task.get_logger().report_scalar("loss", "train", 0.5, 1)
"""
    site.daemon()
    task = site.bare_task(text, enqueue=False, requirements={"pip": "clearml"})
    site.properties(task, num_nodes="2", num_cpus="1")
    site.client.tasks.enqueue(task, site.queue_id)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    lines = site.lines(task)
    assert any(line == f"task {task} None" for line in lines)
    assert any(line == f"[n2:1] task {task} None" for line in lines)
    assert site.read_back(task)["scalars"]["loss"]["train"]["y"] == [0.5]


# ---------------------------------------------------------------- real programs of many ranks

GLOO = """
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
print("rank", dist.get_rank(), "of", dist.get_world_size(), "sum", total.item(), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


FIRST_FAILURE = """
import os, sys, time

if os.environ["RANK"] == "3":
    open({failed!r}, "w").close()
    sys.exit("no data for rank 3")
while not os.path.exists({failed!r}):
    time.sleep(0.1)
time.sleep(2)
sys.exit("lost a peer")
"""


def use_torch(site: Site, *more: Path) -> None:
    """PyTorch for the tasks' Python, and other folders."""
    torch = torch_site()
    variables = "\n".join(f'{name}: "{value}"' for name, value in torch.environment.items())
    folders = ":".join(map(str, (torch.python_path, *more)))
    site.configure(f'agent.extra_python_path: "{folders}"\nenvironment {{ {variables} }}')


@pytest.mark.torch
@pytest.mark.parametrize("launcher", ["srun", "torchrun", "accelerate"])
def test_torch_distributed(site: Site, launcher: str) -> None:
    use_torch(site, *([accelerate_path()] if launcher == "accelerate" else []))
    site.daemon()
    task = task_of(site, GLOO, launcher=launcher, ranks_per_node="2")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    lines = site.lines(task)
    for rank, prefix in enumerate(("", "[n1:1] ", "[n2:2] ", "[n2:3] ")):
        assert f"{prefix}rank {rank} of 4 sum 10.0" in lines


@pytest.mark.torch
def test_torchrun_ends_with_the_words_of_the_rank_that_failed(site: Site) -> None:
    """The first one: the others end for its absence."""
    use_torch(site)
    site.daemon()
    task = task_of(
        site, FIRST_FAILURE.format(failed=str(site.folder / "failed")), launcher="torchrun", ranks_per_node="2"
    )
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert site.reason(task) == "worker execution exit code 1: rank 3 on n2: no data for rank 3"


def test_a_launcher_that_the_task_does_not_have_is_named(site: Site) -> None:
    site.daemon()
    task = task_of(site, SHOW, launcher="torchrun")
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert re.match(r"worker execution exit code 1: torchrun on n\d: .*torch", site.reason(task)), site.reason(task)


MPI = """
from mpi4py import MPI

world = MPI.COMM_WORLD
print("rank", world.Get_rank(), "of", world.Get_size(), "sum", world.allreduce(world.Get_rank() + 1), flush=True)
"""


@pytest.mark.mpi
def test_open_mpi(site: Site) -> None:
    if not shutil.which("mpirun") or not shutil.which("orted"):
        missing("mpi", "mpirun and orted are not installed")
    # Root may not use it unasked; and two nodes on one machine must not take each other for neighbours in memory.
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "tcp,self"}
    site.configure("environment { " + ", ".join(f'{name}: "{value}"' for name, value in allowed.items()) + " }")
    site.daemon()
    script = {"requirements": {"pip": "mpi4py"}}
    task = task_of(site, MPI, script=script, launcher="mpirun", ranks_per_node="2")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    lines = [re.sub(r"^\[n\d:\d\] ", "", line) for line in site.lines(task)]
    assert {f"rank {rank} of 4 sum 10" for rank in range(4)} < set(lines)
