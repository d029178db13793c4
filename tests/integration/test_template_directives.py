"""``#SBATCH`` lines that hold what users wrote, as the real sbatch reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.task import Task
from hpc_agent.schedulers.slurm.script import SbatchScript
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.submission.render import JobContext, Renderer

pytestmark = pytest.mark.slurm

TEXTS = (
    "plain",
    "two words",
    "--partition=urgent",
    "x --partition=urgent --time=9:00:00",
    'x" --partition=urgent "',
    "x' --partition=urgent '",
    'x\\" --partition=urgent',
    "ends with \\",
    "a # b --partition=urgent",
    "#SBATCH --partition=urgent",
    "$(id) `id` ${HOME} %j %u",
    "ünï ☃",
    "a;b&c|d>e<f*g?h[i]j{k}l~m!n",
)


def script(folder: Path, directive: str, text: str) -> Path:
    (folder / "site.j2").write_text(f"#!/bin/bash\n#SBATCH --hold\n{directive}\n#SBATCH --time=00:01:00\ntrue\n")
    task = Task(TaskId("a" * 32), name=text)
    context = JobContext(
        task=task,
        attempt=attempt_for("c", QueueId("q"), task.id, "t"),
        queue_name="q",
        resources=Resources(),
        run_dir=folder,
        output=folder / "job.out",
        config_file=folder / "job.conf",
        agent=["hpc-agent"],
    )
    path = folder / "job.sbatch"
    path.write_text(Renderer(SbatchScript(SlurmSettings()), [folder]).render("site.j2", context), encoding="utf-8")
    return path


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("directive", "prefix"),
    [
        ("#SBATCH --comment={{ task.name }}", ""),
        ("#SBATCH --comment {{ task.name | directive }}", ""),
        ("#SBATCH --comment=task-{{ task.name }}", "task-"),
        ("#SBATCH --qos=normal --comment={{ task.name | quote }} --no-requeue", ""),
    ],
)
def test_sbatch_takes_the_text_for_one_value(
    slurm_cluster: Any, tmp_path: Path, directive: str, prefix: str, text: str
) -> None:
    job = slurm_cluster.run("sbatch", "--parsable", str(script(tmp_path, directive, text))).strip()
    try:
        shown = slurm_cluster.run("squeue", "--noheader", f"--jobs={job}", "--format=%P|%l|%k").strip()
    finally:
        slurm_cluster.run("scancel", job)
    assert shown == f"main|1:00|{prefix}{text}".strip()
