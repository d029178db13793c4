"""`hpc-agent build --docker` with real podman: images that run their task."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from build_task import make_repository, make_task, make_wheels
from container_images import Podman, podman
from container_site import ContainerSite, container_site

from hpc_agent.config.load import load
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.podman

BUILT = "localhost/hpc-agent-test-built"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def task(site: ContainerSite, tmp_path: Path) -> TaskId:
    return make_task(site, make_repository(tmp_path / "lab"))


@pytest.fixture(scope="module")
def runtime() -> Podman:
    return podman()


@pytest.fixture
def site(clearml_server: Any, wheels: Path, runtime: Podman, tmp_path: Path) -> Iterator[ContainerSite]:
    env = {**runtime.env, "PIP_FIND_LINKS": str(wheels), "CLEARML_AGENT__HPC__CONTAINER__RUNTIME": "podman"}
    site = container_site(clearml_server, tmp_path, env)
    yield site
    site.close()
    assert runtime.containers() == []
    runtime.run("rmi", "--force", BUILT, check=False)


def build(site: ContainerSite, task: TaskId, *flags: str) -> str:
    done = site.agent("build", "--id", task, "--target", BUILT, *flags, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Built {BUILT} from ")
    return BUILT


def start(site: ContainerSite, runtime: Podman, image: str) -> subprocess.CompletedProcess[str]:
    api = load(site.conf, {}).settings.api
    keys = {"CLEARML_API_ACCESS_KEY": api.access_key, "CLEARML_API_SECRET_KEY": api.secret_key.reveal()}
    argv = ["podman", "run", "--rm", *(f"--env={name}" for name in keys), image]
    env = {**os.environ, **runtime.env, **keys}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_an_image_that_runs_its_task(site: ContainerSite, runtime: Podman, task: TaskId) -> None:
    """No Python in the base: ours goes in, for the task and for the agent."""
    image = build(
        site, task, "--docker", runtime.image("bare"), "--entry-point", "reuse_task", "-O", "--log-level", "ERROR"
    )
    started = start(site, runtime, image)
    assert started.returncode == 0, started.stdout + started.stderr
    assert site.status(task) is TaskStatus.COMPLETED
    console = site.console(task)
    assert "RAN 1.0 helper /opt/hpc-agent/source/lab/src" in console
    assert f"{sys.base_prefix} 1 []" in console
    assert "names the image" not in console
    without = runtime.run("run", "--rm", "--env=CLEARML_API_HOST=http://127.0.0.1:9", image, check=False)
    assert "RAN" not in without


def test_an_image_that_runs_a_clone_each_time(site: ContainerSite, runtime: Podman, task: TaskId) -> None:
    """The base's own Python runs both; its packages are seen."""
    site.client.tasks.edit(
        task,
        {
            "container": {
                "image": runtime.image("python"),
                "arguments": "-e WORD=1",
                "setup_shell_script": "echo $WORD > /made-by-setup",
            }
        },
    )
    image = build(site, task, "--docker", "no/such/image", "--entry-point", "clone_task")
    started = start(site, runtime, image)
    assert started.returncode == 0, started.stdout + started.stderr
    assert site.status(task) is TaskStatus.CREATED
    clone = TaskId(started.stderr.partition("Running the clone ")[2].split()[0])
    assert site.status(clone) is TaskStatus.COMPLETED
    assert "RAN 1.0 helper" in site.console(clone)
    show = ["run", "--rm", "--entrypoint=cat", image, "/made-by-setup"]
    assert runtime.run(*show) == "1\n"
    secret = load(site.conf, {}).settings.api.secret_key.reveal()
    everything = ["run", "--rm", "--entrypoint=grep", image, "-r", "-l", secret, "/opt", "/etc", "/root", "/tmp"]
    assert runtime.run(*everything, check=False) == ""


def test_an_image_for_other_tasks(site: ContainerSite, runtime: Podman, task: TaskId) -> None:
    """Without an entry point it starts as its base does, and holds the packages for its users."""
    image = build(site, task, "--docker", runtime.image("python"), "--force-docker")
    assert runtime.run("run", "--rm", image, "python3", "-c", "import alpha; print(alpha.VERSION)") == "1.0\n"
    assert "main.py" in runtime.run("run", "--rm", image, "ls", "/opt/hpc-agent/source/lab/src")
    other = site.task("import alpha; print('OTHER', alpha.__file__)", image, requirements={"pip": "alpha"})
    done = site.execute(other)
    assert "OTHER /usr/local/lib" in done.stdout, done.stdout


def test_a_build_that_fails_leaves_no_container(site: ContainerSite, runtime: Podman, task: TaskId) -> None:
    site.client.tasks.edit(
        task, {"container": {"image": runtime.image("bare"), "setup_shell_script": "echo oops >&2; exit 3"}}
    )
    done = site.agent("build", "--id", task, "--docker")
    assert done.returncode == 1
    assert "the image cannot be built: oops" in done.stderr


def test_no_image_is_named(site: ContainerSite, task: TaskId) -> None:
    done = site.agent("build", "--id", task, "--docker")
    assert done.returncode == 2
    assert "--docker names no image, nor does the task or agent.default_docker.image" in done.stderr
