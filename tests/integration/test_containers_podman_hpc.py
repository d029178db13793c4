"""Tasks in containers of the real podman-hpc, over the same podman and images as those of podman's own tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from container_images import Podman, podman
from container_site import ContainerSite, container_site
from waiting import HANG_S

pytestmark = pytest.mark.podman

WHERE = "import os, sys; print(sys.base_prefix, os.path.exists('/run/.containerenv'))\n"


@pytest.fixture(scope="module")
def runtime() -> Podman:
    return podman()


@pytest.fixture
def site(clearml_server: Any, runtime: Podman, tmp_path: Path) -> Iterator[ContainerSite]:
    programs = Path(sys.executable).parent
    env = {
        **runtime.env,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CLEARML_AGENT__HPC__CONTAINER__RUNTIME": "podman-hpc",
        # Its own places for images want fuse-overlayfs.
        "PODMANHPC_USE_DEFAULT_ARGS": "False",
        "SCRATCH": str(tmp_path),
    }
    found = container_site(clearml_server, tmp_path, env)
    yield found
    found.close()
    assert runtime.containers() == []


def test_a_task_in_its_image_which_no_file_is_made_of(site: ContainerSite, runtime: Podman) -> None:
    task = site.task(f"{WHERE}import onlyinimage; print(onlyinimage.VERSION)", runtime.image("python"))
    warmed = site.agent("cache", "warm", "--id", task)
    assert warmed.returncode == 0, warmed.stdout + warmed.stderr
    assert list(site.root.glob("images/*.tar")) == []
    done = site.execute(task, "--standalone-mode")
    assert done.returncode == 0, done.stdout
    assert "/usr/local True\n1.5" in done.stdout


def test_exit_code_and_an_image_that_is_not_there(site: ContainerSite, runtime: Podman) -> None:
    assert site.execute(site.task("raise SystemExit(7)", runtime.image("bare"))).returncode == 7
    task = site.task(WHERE, "localhost:1/no/such:1")
    with site.executing(task, until="Retrying for up to 5 minutes") as agent:
        agent.terminate()
        agent.wait(HANG_S)
    assert "the image localhost:1/no/such:1 cannot be fetched: its registry does not answer" in site.console(task)
