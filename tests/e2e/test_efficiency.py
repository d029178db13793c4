"""At its end a task says what it used of what it asked for, in user properties and a chart; a command sums it up."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from typing import Any

import fake_nvml
import pytest
from e2e_site import Site
from served_queues import serve
from waiting import wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

HOLDS = """
import time
block = bytearray(300 << 20)
end = time.time() + 4
while time.time() < end:
    pass
"""
READ_PLOTS = """
import json, sys
from clearml import Task
task = Task.get_task(task_id=sys.argv[1])
print("RESULT" + json.dumps([task.get_reported_plots(), task.get_user_properties()]))
"""


def properties(site: Site, task: TaskId) -> Mapping[str, str]:
    return site.client.tasks.get(task).properties


def read_by_the_sdk(site: Site, task: TaskId) -> Any:
    argv = [str(site.peers / "python"), "-c", READ_PLOTS, task]
    done = subprocess.run(argv, env=site.env, text=True, capture_output=True, timeout=120, check=True)
    return json.loads(done.stdout.split("RESULT", 1)[1].splitlines()[0])


@pytest.mark.slurm
@pytest.mark.peers
def test_a_task_says_what_it_used_of_what_it_asked_for(site: Site) -> None:
    served = serve(site, {"q": ""})
    task = served.task("q", HOLDS, memory_gb="4", num_cpus="2", time_limit="90")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    found = properties(site, task)
    assert re.fullmatch(r"0\.\d+ of 2 CPUs \(\d+%\)|1(\.\d+)? of 2 CPUs \(\d+%\)", found["hpc_used_cpus"])
    assert re.fullmatch(r"0\.3\d* of 4 GiB \([78]%\)", found["hpc_used_memory"])
    assert re.fullmatch(r"00:00:\d\d of 01:30:00 \(\d%\)", found["hpc_used_time"])
    assert re.match(r"\d+ on \S+$", found["hpc_job"])
    assert found["hpc_advice"].startswith("asked 4 GiB, used 0.3")
    assert "memory_gb 1 would have been enough; asked 01:30:00, ran 00:00:" in found["hpc_advice"]
    assert "hpc_used_gpus" not in found

    [chart], by_sdk = read_by_the_sdk(site, task)
    assert (chart["metric"], chart["variant"]) == ("Resources", "used of asked")
    lines = {line["name"]: line for line in json.loads(chart["plot_str"])["data"]}
    assert lines.keys() == {"CPU (of 2 CPUs)", "memory (of 4 GiB)"}
    memory = lines["memory (of 4 GiB)"]
    assert len(memory["x"]) == len(memory["y"]) >= 2 and 7 < max(memory["y"]) < 12
    assert by_sdk["hpc_used_memory"]["value"] == found["hpc_used_memory"]


@pytest.mark.compiler
def test_gpus_are_counted_too(machine: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    machine.env = {**machine.env, **fake_nvml.build(tmp_path_factory.mktemp("nvml"), 4)}
    task = machine.bare_task(HOLDS)
    machine.daemon("--gpus", "0-1")
    assert machine.wait_for_end(task) is TaskStatus.COMPLETED
    found = properties(machine, task)
    assert found["hpc_used_gpus"] == "0.2 of 2 GPUs (10%)"
    assert found["hpc_used_gpu_memory"] == "2 of 16 GiB (12%)"


@pytest.mark.slurm
def test_a_task_that_dies_early_has_figures_and_no_advice(site: Site) -> None:
    task = site.bare_task("raise SystemExit(3)")
    site.daemon()
    assert site.wait_for_end(task) is TaskStatus.FAILED
    found = properties(site, task)
    assert found["hpc_advice"] == ""
    assert re.search(r" of 00:10:00 \(\d%\)$", found["hpc_used_time"])


def test_nothing_is_reported_where_monitoring_is_off(machine: Site) -> None:
    task = machine.bare_task("print('quiet')", enqueue=False)
    assert machine.agent("execute", "--id", task, "--disable-monitoring").returncode == 0
    assert not [name for name in properties(machine, task) if name.startswith("hpc_")]


@pytest.mark.slurm
def test_the_command_sums_up_what_tasks_reported_and_what_accounting_knows(site: Site) -> None:
    served = serve(site, {"q": ""})
    asked = {"memory_gb": "4", "num_cpus": "2"}
    reported = served.task("q", HOLDS, **asked)
    accounted = served.task("q", HOLDS, **asked)
    clone_of_a_run = served.task("q", "print(1)", **asked, hpc_used_memory="3 of 4 GiB (75%)", hpc_job="1 on n1")
    for task in (reported, accounted, clone_of_a_run):
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
    # As where its agent was killed with it.
    gone = [{"section": "properties", "name": name} for name in properties(site, accounted) if name.startswith("hpc_")]
    site.client.session.call("tasks.delete_hyper_params", {"task": accounted, "hyperparams": gone})
    wait_until("sacct to have its record", lambda: site.slurm("sacct", "-n", "-X", "-S", "now-1hours", "-o", "State"))

    queue = site.client.queues.get_many([served.ids["q"]])[0].name
    done = site.agent("efficiency", "--queue", queue, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [found] = json.loads(done.stdout)
    assert (found["queue"], found["name"], found["tasks"]) == (queue, "bare", 3)
    # Weighted with times, which depend on how busy the machine is; the figures of the original would make it 25 %.
    assert 0.03 < found["memory"] < 0.1 and 0 < found["cpus"] < 1 and found["gpus"] is None
    assert "memory_gb 1 would have been enough" in found["advice"]

    narrow = site.agent("efficiency", "--queue", queue, COLUMNS="60").stdout
    print(narrow)
    assert max(map(len, narrow.splitlines())) <= 60
    assert site.agent("efficiency", "--by", "user").stdout.split()[:3] == ["USER", "TASKS", "HOURS"]
    assert "No task" in site.agent("efficiency", "--queue", site.queue).stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--last", "week"], '--last is "week", expected a number with m, h, d or w, such as 7d or 12h'),
        (["--last", "0d"], '--last is "0d"'),
        (["--by", "colour"], '--by is "colour", expected one or more of queue, user, name with commas'),
        (["--queue", "nowhere"], 'there is no queue "nowhere"'),
    ],
)
def test_wrong_input_to_efficiency_is_a_sentence(machine: Site, arguments: list[str], sentence: str) -> None:
    done = machine.agent("efficiency", *arguments)
    assert (done.returncode, sentence in done.stderr, done.stdout) == (2, True, "")


@pytest.mark.slurm
def test_the_requests_of_a_day_are_counted(site: Site) -> None:
    site.configure(f'hpc {{ root: "{site.folder}/hpc" }}')
    task = site.bare_task("print('done')")
    daemon = site.daemon()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    # The job's agent writes its counts down after the task's end.
    wait_until("the job ends", lambda: not site.jobs(task))
    daemon.terminate()
    daemon.wait(30)
    found = {row["program"]: row for row in json.loads(site.agent("stats", "--json").stdout)}
    assert found["daemon"]["scheduler"]["sbatch"] == 1 and found["daemon"]["scheduler"]["squeue"] > 0
    assert found["daemon"]["server"]["queues.get_all"] > 0
    assert found["execute"]["server"]["tasks.started"] == 1 and "sbatch" not in found["execute"]["scheduler"]
    shown = site.agent("stats", COLUMNS="60").stdout
    print(shown, site.agent("stats", "--by-program").stdout)
    assert shown.splitlines()[0].split() == ["DAY", "SCHEDULER", "OF", "THESE", "SERVER", "OF", "THESE"]
    assert max(map(len, shown.splitlines())) <= 60
    assert "daemon" in site.agent("stats", "--by-program").stdout
    wrong = site.agent("stats", "--last", "x")
    assert (wrong.returncode, "--last is" in wrong.stderr) == (2, True)
