"""What is installed is what is here: a wheel in an empty environment has its commands, templates and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(argv, check=True, timeout=240)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_package_and_its_templates_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "hpc_agent/sbatch_templates/gpu.sbatch.j2" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"hpc_agent"}


def test_it_runs_in_an_empty_environment_and_finds_its_templates(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    lock = ROOT / "requirements.lock"
    install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(lock), str(wheel)]
    subprocess.run(install, check=True, timeout=240)
    for command in ("hpc-agent", "hpc-task"):
        argv = [str(python.with_name(command)), "--help"]
        done = subprocess.run(argv, cwd=tmp_path, text=True, capture_output=True, check=True)
        assert done.stdout.startswith(f"Usage: {command}")
    where = "from hpc_agent.submission.render import own_templates; print(own_templates() / 'gpu.sbatch.j2')"
    done = subprocess.run([str(python), "-c", where], cwd=tmp_path, text=True, capture_output=True, check=True)
    template = Path(done.stdout.strip())
    assert template.is_file()
    assert tmp_path in template.parents
    missing = subprocess.run(
        [str(python.with_name("hpc-agent")), "server"], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert missing.returncode == 2
    assert "pip install 'hpc-agent[server]'" in missing.stderr
