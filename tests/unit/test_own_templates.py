"""Every template of every backend renders into a script that bash reads, for the largest and the smallest request."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from resource_values import RESOURCE_VALUES

from hpc_agent.config.resource_settings import ResourceSettings
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.task import Task
from hpc_agent.errors import TemplateError
from hpc_agent.schedulers import registry
from hpc_agent.schedulers.base import ScriptLanguage
from hpc_agent.submission.render import JobContext, Renderer

LANGUAGES: dict[str, ScriptLanguage] = {
    name: registry.load(name).script(HpcSettings()) for name in registry.BATCH_SYSTEMS
}
TEMPLATES = [
    (name, path.name) for name, language in LANGUAGES.items() for path in sorted(language.templates.glob("*.j2"))
]
FULL = Resources(
    gpus=2,
    gpu_type="a100",
    cpus=4,
    memory_mb=8192,
    time_minutes=90,
    partition="the-partition",
    account="the-account",
    constraint="the-feature",
    reservation="the-reservation",
    exclude="the-node",
)
"""All but several nodes and a QOS, which not every batch system has."""
NAMES = ("the-partition", "the-account", "the-feature", "the-reservation", "the-node")


def rendered(name: str, template: str, resources: Resources, *, signal_ahead: float, requeue: bool) -> str:
    """``template`` of the backend ``name`` for one task; ``signal_ahead`` in seconds."""
    task = Task(TaskId("a" * 32), name="it's $(a task)")
    context = JobContext(
        task=task,
        attempt=attempt_for("c", QueueId("q"), task.id, "t"),
        queue_name="q",
        resources=resources,
        run_dir=Path("/runs/one"),
        output=Path("/runs/one/job.out"),
        config_file=Path("/runs/job.conf"),
        agent=["the-agent"],
        flags=["--standalone-mode"],
        exports={"NAME": "'a word'"},
        signal_ahead=signal_ahead,
        requeue=requeue,
    )
    return Renderer(LANGUAGES[name]).render(template, context)


def directives(name: str, script: str) -> list[str]:
    return [line for line in script.splitlines() if line.startswith(LANGUAGES[name].prefix)]


def check(name: str, script: str) -> None:
    """A script of bash whose directives come before its first command, and whose last command is the agent."""
    done = subprocess.run(["bash", "-n"], input=script.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    commands = [line for line in script.splitlines() if line.strip() and not line.startswith("#")]
    assert script.index(commands[0]) > script.index(directives(name, script)[-1])
    assert commands[-1].startswith("exec the-agent ")


def test_every_batch_system_has_its_two_templates() -> None:
    for name, language in LANGUAGES.items():
        assert (name, language.default_template) in TEMPLATES
        assert (name, language.staging_template) in TEMPLATES


@pytest.mark.parametrize(("name", "template"), TEMPLATES)
def test_template_with_all_that_a_job_may_ask_for(name: str, template: str) -> None:
    script = rendered(name, template, FULL, signal_ahead=60, requeue=True)
    check(name, script)
    asked = "\n".join(directives(name, script))
    assert [word for word in NAMES if word not in asked] == []
    assert "trap '' USR1" in script
    assert "export NAME='a word'" in script


@pytest.mark.parametrize(("name", "template"), TEMPLATES)
def test_template_for_a_job_that_asks_for_nothing(name: str, template: str) -> None:
    script = rendered(name, template, Resources(), signal_ahead=0, requeue=False)
    check(name, script)
    assert "None" not in script
    assert [line for line in directives(name, script) if line.rstrip() in (LANGUAGES[name].prefix, "")] == []
    assert [line for line in directives(name, script) if line.endswith("=")] == []
    assert "trap" not in script


@pytest.mark.parametrize("field", RESOURCE_VALUES)
@pytest.mark.parametrize("name", LANGUAGES)
def test_each_resource_reaches_the_script_or_is_refused(name: str, field: str) -> None:
    template = LANGUAGES[name].default_template
    asked = ResourceSettings(**{"num_gpus": 2, field: RESOURCE_VALUES[field]})  # type: ignore[arg-type]
    base = Resources(gpus=2)
    plain = rendered(name, template, base, signal_ahead=0, requeue=False)
    try:
        script = rendered(name, template, asked.over(base), signal_ahead=0, requeue=False)
    except TemplateError as error:
        assert field in str(error)
    else:
        assert directives(name, script) != directives(name, plain)
