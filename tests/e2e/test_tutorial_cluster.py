"""docs/tutorial-cluster.md does what it says: its commands run, in order, on a real cluster with its own server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clearml_server import ClearmlServer

pytestmark = pytest.mark.slurm

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial-cluster.md").read_text()
INSTALL, *STEPS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def home(slurm_cluster: Any, start_clearml_server: Callable[..., ClearmlServer], tmp_path: Path) -> Iterator[Home]:
    conf = tmp_path / "clearml.conf"
    conf.write_text(start_clearml_server().conf.read_text())
    conf.chmod(0o600)
    kept = {name: value for name, value in slurm_cluster.env.items() if not name.startswith(("CLEARML_", "SLURM_JOB"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    home = Home(tmp_path, {**kept, "HOME": str(tmp_path), "PATH": path, "COLUMNS": "100"})
    yield home
    home.run("hpc-agent daemon --stop || true")


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


def test_the_steps_of_the_page_run_on_a_real_cluster(home: Home) -> None:
    assert "pip install" in INSTALL
    configure, check, serve, run, wait, die, use, stop = STEPS

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
