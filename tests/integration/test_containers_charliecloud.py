"""Tasks in real Charliecloud containers: image folders, no daemon, the job's own processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from container_images import charliecloud
from container_site import POLITE, ContainerSite, container_site

from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.charliecloud

RUNTIME = {"CLEARML_AGENT__HPC__CONTAINER__RUNTIME": "charliecloud"}
WHERE = "import os, sys; print(sys.executable, sys.base_prefix, os.getcwd(), os.environ['HOME'], os.environ['PATH'])\n"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("charliecloud-images")
    return {kind: charliecloud(kind, folder) for kind in ("bare", "python")}


@pytest.fixture(scope="module")
def site(clearml_server: Any, images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> ContainerSite:
    return container_site(clearml_server, tmp_path_factory.mktemp("charliecloud"), RUNTIME)


def test_the_images_own_python_runs_the_task_with_the_images_packages(
    site: ContainerSite, images: dict[str, Path]
) -> None:
    task = site.task(f"{WHERE}import onlyinimage; print(onlyinimage.VERSION)", str(images["python"]))
    done = site.execute(task)
    assert done.returncode == 0, done.stdout
    assert "/hpc-agent/environment/bin/python /usr/local /hpc-agent/work/code /hpc-agent/home" in done.stdout
    assert "/hpc-agent/environment/bin:/usr/local/sbin:" in done.stdout
    assert done.stdout.rstrip().endswith("1.5\nProcess completed successfully")


def test_an_image_without_python_gets_ours_from_the_shared_cache(site: ContainerSite, images: dict[str, Path]) -> None:
    task = site.task(WHERE, str(images["bare"]))
    done = site.execute(task)
    assert f"/hpc-agent/environment/bin/python {sys.base_prefix} /hpc-agent/work/code" in done.stdout
    offline = site.execute(task, "--standalone-mode")
    assert offline.returncode == 0, offline.stdout


def test_an_image_by_its_name_in_the_shared_folder(site: ContainerSite, images: dict[str, Path]) -> None:
    folder = site.folder / "hpc" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lab%tools+2").symlink_to(images["bare"])
    done = site.execute(site.task(WHERE, "lab/tools:2"), "--standalone-mode")
    assert done.returncode == 0, done.stdout


def test_variables_folders_and_what_means_nothing_to_it(
    site: ContainerSite, images: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("from outside")
    code = "import os; print(os.environ['WORD'], open('/data/data').read(), 'SECRET_OF_NODE' in os.environ)"
    task = site.task(
        code, str(images["bare"]), f"-e 'WORD=two words' -v {tmp_path}:/data:ro --shm-size=1g", "echo set up"
    )
    done = site.execute(task, SECRET_OF_NODE="x", CLEARML_AGENT__AGENT__ALLOWED_DOCKER_EXTRA_ARGS='["volume"]')
    assert "set up\ntwo words from outside False" in done.stdout
    assert "--shm-size=1g means nothing to this runtime: left out" in done.stdout


def test_exit_code_and_sigterm(site: ContainerSite, images: dict[str, Path]) -> None:
    assert site.execute(site.task("raise SystemExit(7)", str(images["bare"]))).returncode == 7
    task = site.task(POLITE, str(images["bare"]))
    with site.executing(task) as agent:
        agent.terminate()
        assert agent.wait(60) == 1
    assert "cleaned up" in site.console(task)
    assert site.status(task) is TaskStatus.STOPPED


def test_an_image_that_is_not_there(site: ContainerSite) -> None:
    task = site.task(WHERE, "/no/such/image")
    assert site.execute(task).returncode == 1
    assert site.reason(task) == "the image /no/such/image is not there; is the path right, on all nodes?"


def test_an_image_that_cannot_be_changed_must_have_its_mount_points(
    site: ContainerSite, images: dict[str, Path], tmp_path: Path
) -> None:
    # A file where a folder is wanted: also root cannot make one in it.
    broken = charliecloud("bare", tmp_path)
    (broken / "hpc-agent").touch()
    task = site.task(WHERE, str(broken))
    assert site.execute(task).returncode == 1
    assert "has no folder /hpc-agent/start to mount at, and none can be made in it" in site.reason(task)
