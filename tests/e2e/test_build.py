"""`hpc-agent build`: folders that run without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from build_task import make_repository, make_task, make_wheels
from capabilities import missing
from container_images import tree
from container_site import ContainerSite, container_site

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository") / "lab")


@pytest.fixture
def site(clearml_server: Any, wheels: Path, tmp_path: Path) -> Iterator[ContainerSite]:
    site = container_site(clearml_server, tmp_path, {"PIP_FIND_LINKS": str(wheels)})
    yield site
    site.close()


@pytest.fixture
def task(site: ContainerSite, repository: Path) -> TaskId:
    return make_task(site, repository)


def without_network(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run in a network namespace of its own, and with hardly any variables."""
    unshare = ["unshare", "--user", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        missing("namespaces", "no network namespace can be made here")
    return subprocess.run(
        [*unshare, *argv],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nowhere", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_built_folder_reports_its_paths(site: ContainerSite, task: TaskId, tmp_path: Path) -> None:
    target = tmp_path / "built"
    done = site.agent("build", "--id", task, "--target", str(target))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"Restoring running environment of task id [{task}]:",
        "Summary - installed python packages:",
        "pip:",
        "- alpha==1.0",
        f"Virtual environment: {target}/environment/bin",
        f"Source code: {target}/source/lab",
        f"Entry point: {target}/source/lab/src/main.py",
        f"Run it with: {target}/run",
    ]
    assert site.status(task) is TaskStatus.CREATED


@pytest.mark.namespaces
def test_it_runs_without_a_network_and_from_another_place(site: ContainerSite, task: TaskId, tmp_path: Path) -> None:
    target = tmp_path / "built"
    site.agent("build", "--id", task, "--target", str(target), "-OO", "--gpus", "0.1", "--log-level", "ERROR")
    moved = tmp_path / "else where" / "built"
    moved.parent.mkdir()
    target.rename(moved)
    shutil.rmtree(site.folder / "hpc")
    shutil.rmtree(site.folder / "scratch")
    done = without_network(str(moved / "run"), "--steps", "3")
    assert done.returncode == 0, done.stderr
    words = f"RAN 1.0 helper {moved}/source/lab/src {moved}/environment 2 ['--steps', '3']"
    assert done.stdout.splitlines() == [words, "GPUS 0:1 ERROR"]
    # The repository in it is whole: the SDK reads commit and changes from it.
    status = subprocess.run(["git", "status", "--short"], cwd=moved / "source/lab", capture_output=True, text=True)
    assert (status.returncode, status.stdout) == (0, "?? src/lib/__pycache__/\n")


@pytest.mark.namespaces
def test_cpu_only_hides_the_gpus(site: ContainerSite, task: TaskId, tmp_path: Path) -> None:
    assert site.agent("build", "--id", task, "--target", str(tmp_path / "b"), "--cpu-only").returncode == 0
    assert "GPUS none" in without_network(str(tmp_path / "b" / "run")).stdout


def test_a_second_build_replaces_the_first_and_nothing_else(site: ContainerSite, task: TaskId, tmp_path: Path) -> None:
    target = tmp_path / "built"
    first = site.agent("build", "--id", task, "--target", str(target))
    (target / "leftover").touch()
    assert first.returncode == site.agent("build", "--id", task, "--target", str(target)).returncode == 0
    assert sorted(path.name for path in target.iterdir()) == [".hpc-agent-build.json", "environment", "run", "source"]
    own = tmp_path / "mine"
    own.mkdir()
    (own / "thesis.tex").touch()
    refused = site.agent("build", "--id", task, "--target", str(own))
    assert refused.returncode == 2
    assert f"{own} exists and is not an earlier build: choose another folder with --target" in refused.stderr
    assert list(tmp_path.glob(".built*")) == []


def test_without_a_target_the_folder_is_named_by_the_task(site: ContainerSite, task: TaskId) -> None:
    site.client.tasks.edit(task, {"name": "build by name"})
    done = site.agent("build", "--id", "build by name")
    assert f"Run it with: {site.folder}/hpc/builds/{task}/run" in done.stdout


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("newest", "--python-version is 'newest', expected a version such as 3.11"),
        ("3.99", "Python 3.99 is not on this machine"),
    ],
)
def test_python_versions_that_cannot_be(site: ContainerSite, task: TaskId, version: str, words: str) -> None:
    done = site.agent("build", "--id", task, "--python-version", version)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("spelling", ["{0}.{1}", "python{0}.{1}", "{0}.{1}.{2}", "{0}"])
def test_the_python_that_runs_us_in_every_spelling(
    site: ContainerSite, task: TaskId, tmp_path: Path, spelling: str
) -> None:
    version = spelling.format(*sys.version_info)
    done = site.agent("build", "--id", task, "--target", str(tmp_path / "b"), "--python-version", version)
    assert done.returncode == 0, done.stderr


@pytest.mark.namespaces
def test_packages_in_the_interpreter_itself(site: ContainerSite, task: TaskId, tmp_path: Path) -> None:
    # An interpreter of the test's own: no other one may be changed.
    prefix = tmp_path / "python"
    shutil.copytree(tree("python") / "usr" / "local", prefix, symlinks=True)
    python = prefix / "bin" / "python3"
    target = tmp_path / "built"
    library: dict[str, Any] = {"LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"}
    done = site.agent(
        *("build", "--id", task, "--target", str(target), "--install-globally"),
        CLEARML_AGENT__AGENT__PYTHON_BINARY=f'"{python}"',
        **library,
    )
    assert done.returncode == 0, done.stderr
    assert list(prefix.glob("lib/python*/site-packages/alpha.py"))
    assert not list(target.glob("environment/lib/python*/site-packages/alpha.py"))
    assert "RAN 1.0 helper" in without_network(str(target / "run"), **library).stdout


def test_flags_that_are_about_images_only(site: ContainerSite, task: TaskId) -> None:
    done = site.agent("build", "--id", task, "--entry-point", "reuse_task")
    assert done.returncode == 2
    assert "give --docker too" in done.stderr


def test_an_apptainer_image_wants_apptainer(site: ContainerSite, task: TaskId) -> None:
    done = site.agent("build", "--id", task, "--target", "x.sif", "--docker", "debian:12", PATH="/usr/bin:/bin")
    assert done.returncode == 2
    assert "apptainer and singularity are not on this machine" in done.stderr
    assert "without .sif, docker or podman make an image" in done.stderr
