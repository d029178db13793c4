"""What is installed is what is here: a wheel in an empty environment has its commands, templates and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


LOCK = ROOT / "requirements.lock"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a release publishes: the sdist, and the wheel that was made from it."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    argv = [sys.executable, str(ROOT / "scripts" / "build_run.py"), "--into", str(folder)]
    subprocess.run(argv, check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    [wheel] = dist.glob("*.whl")
    return wheel


def test_the_sdist_has_what_others_build_and_test_from(dist: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "CHANGELOG.md", "sbatch_templates/gpu.sbatch.j2", "tests/conftest.py"} <= names


def test_the_wheel_holds_the_package_and_its_templates_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "hpc_agent/sbatch_templates/gpu.sbatch.j2" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"hpc_agent"}


def test_it_runs_in_an_empty_environment_and_finds_its_templates(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(LOCK), str(wheel)]
    subprocess.run(install, check=True, timeout=240)
    for command in ("hpc-agent", "hpc-task"):
        argv = [str(python.with_name(command)), "--help"]
        done = subprocess.run(argv, cwd=tmp_path, text=True, capture_output=True, check=True)
        assert done.stdout.startswith(f"Usage: {command}")
    where = "from hpc_agent.schedulers.slurm.script import own_templates; print(own_templates() / 'gpu.sbatch.j2')"
    done = subprocess.run([str(python), "-c", where], cwd=tmp_path, text=True, capture_output=True, check=True)
    template = Path(done.stdout.strip())
    assert template.is_file()
    assert tmp_path in template.parents
    missing = subprocess.run(
        [str(python.with_name("hpc-agent")), "server"], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert missing.returncode == 2
    assert "pip install 'hpc-agent[server]'" in missing.stderr


def test_uv_and_pipx_install_both_commands(wheel: Path, tmp_path: Path) -> None:
    ways = {
        "uv": ["uv", "tool", "install", "--quiet", "--constraints", str(LOCK), "--python", sys.executable, str(wheel)],
        "pipx": ["pipx", "install", "--quiet", "--pip-args", f"--constraint {LOCK}", str(wheel)],
    }
    for name, argv in ways.items():
        home = tmp_path / name
        environ = {**os.environ, "UV_TOOL_DIR": str(home / "tools"), "UV_TOOL_BIN_DIR": str(home / "bin")}
        environ |= {
            "PIPX_HOME": str(home / "tools"),
            "PIPX_BIN_DIR": str(home / "bin"),
            "PIPX_DEFAULT_PYTHON": sys.executable,
        }
        argv[0] = str(Path(sys.executable).with_name(argv[0]))
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done
        assert sorted(path.name for path in (home / "bin").iterdir()) == ["hpc-agent", "hpc-task"]
        shown = subprocess.run([home / "bin" / "hpc-agent", "--version"], capture_output=True, text=True, check=True)
        assert shown.stdout.startswith("hpc-agent, version ")
