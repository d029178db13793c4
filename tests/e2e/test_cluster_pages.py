"""Pages for users of a cluster do what they say: their commands run on a real one with a server of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clearml_server import ClearmlServer

pytestmark = pytest.mark.slurm

DOCS = Path(__file__).parents[2] / "docs"
GLUE_TEMPLATE = Path(__file__).parents[2] / "scripts" / "examples" / "slurm-glue" / "native.template"


def blocks(page: str) -> list[str]:
    """What a page shows for the shell, block by block."""
    return re.findall(r"^```bash\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def home(
    slurm_cluster: Any, start_clearml_server: Callable[..., ClearmlServer], hpc_cache: Path, tmp_path: Path
) -> Iterator[Home]:
    conf = tmp_path / "clearml.conf"
    conf.write_text(start_clearml_server().conf.read_text())
    conf.chmod(0o600)
    kept = {name: value for name, value in slurm_cluster.env.items() if not name.startswith(("CLEARML_", "SLURM_JOB"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    cache = {"CLEARML_AGENT__hpc__cache_dir": f'"{hpc_cache}"'}
    home = Home(tmp_path, {**kept, **cache, "HOME": str(tmp_path), "PATH": path, "COLUMNS": "100"})
    yield home
    home.run("hpc-agent daemon --stop || true; scancel --user=$(id -un)")


class Home:
    """A user's home folder on a login node."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self._env = env

    def run(self, lines: str) -> subprocess.CompletedProcess[str]:
        """Type the lines of a step."""
        done = subprocess.run(
            ["bash", "-eu", "-c", lines],
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        print(f"{lines}\n=== {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def output(self, lines: str) -> str:
        done = self.run(lines)
        assert done.returncode == 0, (lines, done.stderr)
        return done.stdout


def test_the_first_day_on_a_cluster(home: Home) -> None:
    install, configure, check, serve, run, wait, die, use, stop = blocks("tutorial-cluster.md")
    assert "pip install" in install

    said = home.output(configure)
    assert "main (default)" in said and "hpc.queues.first" in said
    said = home.output(check)
    assert re.search(r"^\d+ ok", said.splitlines()[-1]) and "failed" not in said.splitlines()[-1], said
    said = home.output(serve)
    assert "in the background, process" in said and "queue first: 0 waiting" in said

    said = home.output(run)
    assert "step 4\n" in said
    said = home.output(wait)
    assert "long (" in said and "Free now" in said
    said = home.output(die)
    assert "the Python module no_such_module is not installed" in said
    assert "Next: add its package to the task's requirements" in said

    said = home.output(use)
    assert "asked 4 GiB, used 0.2" in said and "memory_gb 1 would have been enough" in said
    assert "its jobs go on" in home.output(stop)
    ended = json.loads(home.output("hpc-agent why --json train long broken"))
    verdicts = {task["name"]: task["verdict"] for task in ended}
    assert verdicts == {"train": "completed", "long": "stopped", "broken": "failed"}


def test_the_page_on_resources(home: Home) -> None:
    create, look = blocks("resources.md")
    home.output("hpc-agent init --queue gpu && hpc-agent daemon --queue gpu --create-queue --once")
    (home.folder / "train.py").write_text("print(1)\n")
    # A node of the tests has four CPUs.
    assert 'num_cpus is 16, but queue "gpu" allows at most 4' in home.run(create).stderr
    assert "queued on gpu" in home.output(create.replace("--num-cpus 16 --memory-gb 64", "--num-cpus 4 --memory-gb 4"))
    said = home.output(look)
    assert "#SBATCH --gres=gpu:a100:2" in said and "The scheduler would take it" in said
    assert "A job with 2 × a100 for 04:00:00 would start" in said


def test_a_sweep(home: Home) -> None:
    sweep, look = blocks("many-tasks.md")
    home.output("hpc-agent init --queue gpu")
    home.output("hpc-agent daemon --queue gpu --create-queue --detached")
    rates = ("0.3", "0.03", "0.003")
    assert home.output(sweep).count("queued on gpu") == len(rates)
    for rate in rates:
        assert f"learning rate {rate}\n" in home.output(f"hpc-agent logs -f 'sweep lr={rate}'")
    said = home.output(look)
    assert said.count("completed") == len(rates) and "sweep lr=0.003" in said


def test_the_page_for_administrators(home: Home) -> None:
    home.output("hpc-agent init --queue vision && hpc-agent daemon --queue vision --create-queue --once")
    [watch] = [block for block in blocks("lab-administration.md") if "daemon --status" in block]
    said = home.output(watch)
    assert "No daemon is running on this machine" in said and '"ok": true' in said and "SCHEDULER" in said


def test_the_first_commands_for_those_who_come_from_elsewhere(home: Home) -> None:
    page = (DOCS / "coming-from.md").read_text()
    first = [line.strip() for line in page.splitlines() if line.startswith("    hpc-")]
    assert [command.split()[:2] for command in first] == [
        ["hpc-agent", "sbatch"],
        ["hpc-agent", "config"],
        ["hpc-task", "--project"],
        ["hpc-agent", "daemon"],
    ]
    (home.folder / "train.sh").write_text("#!/bin/bash\necho done\n")
    (home.folder / "train.py").write_text("print(1)\n")
    for queue in ("gpu", "cpu"):
        shutil.copy(GLUE_TEMPLATE, home.folder / f"{queue}.template")
    sbatch, config, task, glue = first
    assert re.fullmatch(r"Submitted batch job \d+\n", home.output(sbatch))
    assert "api.api_server" in home.output(config)
    home.output(f"{glue} --create-queue --once")
    # What PyPI has as torch is gigabytes of CUDA.
    assert "queued on gpu" in home.output(task.replace(" torch ", " six "))
    assert "task.submitted" in home.output(f"{glue} --once 2>&1")
