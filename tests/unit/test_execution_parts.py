"""The pure parts of running a task: environment of its process, outcome, resources, rendered script."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from hpc_agent.config.clearml_settings import AgentSettings
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.domain.resources import Override, Policy, Resources, format_time_limit, parse_time_limit
from hpc_agent.domain.task import Task
from hpc_agent.errors import InputError, ResourceError, TemplateError
from hpc_agent.executor.process_environment import ProcessContext, process_environment
from hpc_agent.executor.stop_conditions import StopReason
from hpc_agent.executor.task_outcome import ExitContext, ended
from hpc_agent.schedulers.slurm.script import SbatchScript
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.submission.render import JobContext, Renderer

TASK = Task(TaskId("a" * 32), name="train", environment={"LEVEL": "7"})


def launch(**changes: object) -> ProcessContext:
    base = ProcessContext(
        task=TASK,
        worker=WorkerId("node:slurm:7"),
        log_level="INFO",
        config_file=Path("/home/u/clearml.conf"),
        script_dir=Path("/work/repo/src"),
        root=Path("/work/repo"),
        bin_dir=Path("/envs/k/bin"),
    )
    return msgspec.structs.replace(base, **changes)


def test_the_process_sees_what_the_sdk_expects() -> None:
    environ = process_environment(
        {"PATH": "/usr/bin", "PYTHONPATH": "/own", "PYTHONHOME": "/x", "HPC_AGENT_RUN_DIR": "/runs"},
        launch(),
        AgentSettings(),
    )
    assert environ["CLEARML_TASK_ID"] == environ["TRAINS_TASK_ID"] == TASK.id
    assert environ["CLEARML_LOG_TASK_TO_BACKEND"] == "0"
    assert environ["PATH"] == "/envs/k/bin:/usr/bin"
    assert environ["PYTHONPATH"] == "/own:/work/repo/src"
    assert environ["VIRTUAL_ENV"] == "/envs/k"
    assert {"PYTHONHOME", "HPC_AGENT_RUN_DIR", "LEVEL"}.isdisjoint(environ)


@pytest.mark.parametrize(
    ("gpus", "inherited", "cuda", "nvidia"),
    [
        (None, {"CUDA_VISIBLE_DEVICES": "2,3"}, "2,3", "2,3"),
        ("0,1", {"CUDA_VISIBLE_DEVICES": "2,3"}, "0,1", "0,1"),
        ("0.1", {}, "0:1", "0:1"),
        ("all", {"CUDA_VISIBLE_DEVICES": "2"}, None, "all"),
        ("none", {}, "none", "none"),
    ],
)
def test_gpu_visibility(gpus: str | None, inherited: dict[str, str], cuda: str | None, nvidia: str) -> None:
    environ = process_environment(inherited, launch(gpus=gpus), AgentSettings())
    assert (environ.get("CUDA_VISIBLE_DEVICES"), environ["NVIDIA_VISIBLE_DEVICES"]) == (cuda, nvidia)


def test_the_tasks_own_environment_is_exported_when_the_site_allows_it() -> None:
    environ = process_environment({}, launch(), AgentSettings(enable_task_env=True, extra_python_path="/site"))
    assert environ["LEVEL"] == "7"
    assert environ["PYTHONPATH"].endswith(":/site")


@pytest.mark.parametrize("name", ["", "A=B", "=", "NUL\0"])
def test_an_environment_parameter_that_no_process_can_have_is_named(name: str) -> None:
    task = msgspec.structs.replace(TASK, environment={"GOOD": "1", name: "x"})
    with pytest.raises(InputError, match=re.escape(repr(name))):
        process_environment({}, launch(task=task), AgentSettings(enable_task_env=True))


@pytest.mark.parametrize("value", ["a\0b", "x" * (1 << 17)])
def test_an_environment_parameter_of_an_impossible_value_is_named(value: str) -> None:
    task = msgspec.structs.replace(TASK, environment={"BAD": value})
    with pytest.raises(InputError, match="BAD"):
        process_environment({}, launch(task=task), AgentSettings(enable_task_env=True))


def test_the_process_is_in_utf8_mode_unless_set_otherwise() -> None:
    assert process_environment({}, launch(), AgentSettings())["PYTHONUTF8"] == "1"
    assert process_environment({"PYTHONUTF8": "0"}, launch(), AgentSettings())["PYTHONUTF8"] == "0"


@pytest.mark.parametrize(
    ("code", "why", "status", "exit_code", "words"),
    [
        (0, None, "completed", 0, "done"),
        (3, None, "failed", 3, "exit code 3"),
        (-9, None, "failed", 137, "SIGKILL"),
        (-15, StopReason.ABORT, "stopped", 143, "aborted"),
        (0, StopReason.ABORT, "stopped", 1, "aborted"),
        (-15, StopReason.SIGNAL, "stopped", 143, "received SIGTERM"),
        (-15, StopReason.TAKEN_BACK, "none", 143, "status"),
    ],
)
def test_how_a_process_ended_becomes_a_status(
    code: int, why: StopReason | None, status: str, exit_code: int, words: str
) -> None:
    outcome = ended(code, ExitContext(why))
    assert (outcome.status, outcome.exit_code) == (status, exit_code)
    assert words in outcome.reason


POLICY = Policy(
    "gpu",
    Resources(gpus=1, partition="main"),
    {
        "num_gpus": Override(0, 4),
        "partition": Override(choices=("main", "long")),
        "time_limit": Override(maximum=120),
        "memory_gb": Override(maximum=64),
    },
)


def test_a_task_overrides_within_what_its_queue_allows() -> None:
    asked = {"num_gpus": "2", "partition": "long", "time_limit": "1:30:00", "memory_gb": "1.5"}
    resources = POLICY.resources(asked)
    assert (resources.gpus, resources.partition, resources.time_minutes, resources.memory_mb) == (2, "long", 90, 1536)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num_gpus", "9", "at most 4"),
        ("num_gpus", "two", "expected a whole number"),
        ("partition", "secret", "allows: main, long"),
        ("time_limit", "3:00:00", "at most 120 minutes"),
        ("time_limit", "soon", "D-HH:MM:SS"),
        ("memory_gb", "1000", "at most 64"),
        ("memory_gb", "lots", "a number of GiB"),
        ("memory_gb", "nan", "a number of GiB"),
        ("account", "other", "does not let a task set account"),
        ("num_gpus", "-1", "allows no less than 0"),
    ],
)
def test_beyond_it_the_task_is_refused_with_the_rule(name: str, value: str, words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        POLICY.resources({name: value})


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("10:30", 11), ("01:00:00", 60), ("1-0", 1440), ("1-2:30", 1590), ("2-00:00:01", 2881)],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, minutes: int) -> None:
    assert parse_time_limit(text) == minutes
    assert parse_time_limit(format_time_limit(minutes)) == minutes


DEFAULT = Resources()


def renderer(*folders: Path, **site: Any) -> Renderer:
    return Renderer(SbatchScript(SlurmSettings(**site)), folders)


def context(task: Task = TASK, resources: Resources = DEFAULT) -> JobContext:
    return JobContext(
        task=task,
        attempt=attempt_for("c", QueueId("q"), task.id, "t"),
        queue_name="gpu",
        resources=resources,
        run_dir=Path("/runs/with space"),
        output=Path("/runs/with space/job.out"),
        config_file=Path("/home/u/job.conf"),
        agent=["/opt/py thon", "-m", "hpc_agent"],
    )


@pytest.mark.parametrize(
    ("site", "lines"),
    [
        ({}, ["--gres=gpu:a100:2", "--mem=4096M"]),
        ({"gpu_flag": "gpus", "memory_flag": "mem-per-cpu"}, ["--gpus=a100:4", "--mem-per-cpu=1365M"]),
        ({"gpu_flag": "gpus-per-node"}, ["--gpus-per-node=a100:2"]),
    ],
)
def test_gpus_and_memory_are_asked_for_in_the_sites_dialect(site: dict[str, Any], lines: list[str]) -> None:
    wanted = Resources(nodes=2, gpus=2, gpu_type="a100", cpus=3, memory_mb=4096, time_minutes=90, account="lab")
    text = renderer(**site).render("gpu.sbatch.j2", context(resources=wanted))
    for line in [*lines, "--time=01:30:00", "--account=lab", "--nodes=2", "--cpus-per-task=3"]:
        assert f"#SBATCH {line}\n" in text
    assert text.splitlines()[-2].startswith("exec '/opt/py thon' -m hpc_agent execute --id ")


def test_where_output_goes_is_said_once_on_the_command_line() -> None:
    """There "%" is escaped, which begins a job's fields in a directive too."""
    assert "--output" not in renderer().render("gpu.sbatch.j2", context())


def test_the_script_is_good_bash_and_holds_nothing_unquoted(tmp_path: Path) -> None:
    (tmp_path / "echo.j2").write_text("#!/bin/bash\necho {{ task.name }} {{ task.properties.x }}\n")
    task = msgspec.structs.replace(TASK, name="$(touch hacked); 'x' \"y\"", properties={"x": "`id`"})
    script = renderer(tmp_path).render("echo.j2", context(task))
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{task.name} `id`\n"
    assert not (tmp_path / "hacked").exists()
    base = renderer().render("base.sbatch.j2", context(task))
    subprocess.run(["bash", "-n", "-c", base], check=True)


def test_a_warning_of_the_time_limit_does_not_end_a_job_that_has_no_agent_yet() -> None:
    agent = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGUSR1).name)"]
    ahead = replace(context(), agent=agent, signal_ahead=60)
    script = renderer().render("base.sbatch.j2", ahead).replace("trap '' USR1\n", "trap '' USR1\nkill -USR1 $$\n")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "SIG_IGN\n"
    assert "USR1" not in renderer().render("base.sbatch.j2", context())


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("#!/bin/bash\n{{ resources.gpu }}", "does not exist"),
        ("#!/bin/bash\n{{ nothing }}", "'nothing' is undefined"),
        ("#!/bin/bash\n{% if %}", "broken at line 2"),
        ("no shebang", "does not begin with #!"),
        ("#!/bin/bash\n{{ 1 / 0 }}", "ZeroDivisionError"),
        ("#!/bin/bash\n#SBATCH --comment={{ task.name | directive }}", "control character"),
    ],
)
def test_a_wrong_template_is_named(tmp_path: Path, template: str, words: str) -> None:
    (tmp_path / "site.j2").write_text(template)
    with pytest.raises(TemplateError, match=words):
        renderer(tmp_path).render("site.j2", context(msgspec.structs.replace(TASK, name="a\n#SBATCH --uid=0")))


def test_a_missing_template_names_where_it_was_looked_for() -> None:
    with pytest.raises(TemplateError, match=r"searched: .*sbatch_templates"):
        renderer().render("none.j2", context())
