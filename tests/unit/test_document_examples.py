"""Examples in documents are valid: configurations load, a unit is that of ``init``, a template renders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc_agent.config.load import load
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.task import Task
from hpc_agent.errors import ConfigError
from hpc_agent.schedulers import registry
from hpc_agent.setup.daemon_service import daemon_command, systemd_unit
from hpc_agent.submission.render import JobContext, Renderer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "sbatch_templates" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```(?P<language>\w*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(match["language"], match["body"]) for match in FENCE.finditer(page.read_text("utf-8"))]


def configurations(page: Path) -> list[str]:
    """Blocks that are HOCON by their language, or by their first word."""
    return [body for language, body in blocks(page) if language == "hocon" or body.lstrip().startswith("hpc {")]


EXAMPLES = [
    pytest.param(body, id=f"{page.relative_to(ROOT).as_posix()}-{number}")
    for page in PAGES
    for number, body in enumerate(configurations(page))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_configuration_in_a_document_is_accepted(example: str, tmp_path: Path) -> None:
    conf = tmp_path / "clearml.conf"
    conf.write_text(example, encoding="utf-8")
    environ = {"HOME": str(tmp_path), "HPC_AGENT_SITE_CONFIG": "/dev/null"}
    empty = tmp_path / "empty.conf"
    empty.touch()
    assert load(conf, environ).settings != load(empty, environ).settings


def test_there_are_configurations_and_a_wrong_key_in_one_is_found(tmp_path: Path) -> None:
    assert len(EXAMPLES) >= 7
    conf = tmp_path / "clearml.conf"
    conf.write_text(EXAMPLES[0].values[0].replace("partition", "partitoin"), encoding="utf-8")  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="partitoin"):
        load(conf, {"HOME": str(tmp_path), "HPC_AGENT_SITE_CONFIG": "/dev/null"})


def test_the_system_unit_is_that_of_init_for_another_user() -> None:
    [unit] = [body for language, body in blocks(ROOT / "docs" / "lab-administration.md") if language == "ini"]
    folder = "/shared/hpc-agent/current/bin"
    command = daemon_command([f"{folder}/hpc-agent"], "", ["vision", "students", "--order-fairness"])
    generated = systemd_unit(command, {"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin"})[1:]
    expected = "\n".join(generated).replace("[Service]\n", "[Service]\nUser=lab\n")
    assert unit == f"{expected.replace('default.target', 'multi-user.target')}\n"


@pytest.mark.parametrize(("properties", "comment"), [({"ticket": "T-7"}, "T-7"), ({}, "none")])
def test_the_template_for_those_who_come_from_the_glue_renders(
    properties: dict[str, str], comment: str, tmp_path: Path
) -> None:
    [template] = [body for _, body in blocks(ROOT / "docs" / "coming-from.md") if "{% extends" in body]
    (tmp_path / "ours.sbatch.j2").write_text(template, encoding="utf-8")
    language = registry.load("slurm").script(HpcSettings())
    task = Task(TaskId("a" * 32), name="a task", properties=properties)
    context = JobContext(
        task=task,
        attempt=attempt_for("c", QueueId("q"), task.id, "t"),
        queue_name="q",
        resources=Resources(gpus=2, cpus=4),
        run_dir=Path("/runs/one"),
        output=Path("/runs/one/job.out"),
        config_file=Path("/runs/job.conf"),
        agent=["the-agent"],
    )
    script = Renderer(language, [tmp_path]).render("ours.sbatch.j2", context)
    lines = script.splitlines()
    assert f"#SBATCH --comment={comment}" in lines and "#SBATCH --gres=gpu:2" in lines
    assert "module load cuda/12.4" in lines and any(line.startswith("exec the-agent execute") for line in lines)
