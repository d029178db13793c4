"""Tasks in a real Apptainer: files, registries, a conversion that two want at once, and wrong images."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from apptainer_images import Apptainer, apptainer
from container_images import tree
from container_registry import serving
from container_site import POLITE, ContainerSite, container_site
from oci_layout import image_layout, sif_layout
from waiting import HANG_S, wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.apptainer

WHERE = "import os, sys; print(sys.executable, sys.base_prefix, os.getcwd())\n"
PLAIN_HTTP = {"APPTAINER_NO_HTTPS": "true"}


@pytest.fixture(scope="module")
def runtime() -> Apptainer:
    return apptainer()


@pytest.fixture
def site(clearml_server: Any, runtime: Apptainer, tmp_path: Path) -> ContainerSite:
    return container_site(clearml_server, tmp_path, {**runtime.settings, **PLAIN_HTTP})


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_layout(tree("bare"), tmp_path_factory.mktemp("registry") / "image")


def test_the_images_own_python_with_its_packages(site: ContainerSite, runtime: Apptainer) -> None:
    task = site.task(f"{WHERE}import onlyinimage; print(onlyinimage.VERSION)", str(runtime.sif("python")))
    done = site.execute(task)
    assert done.returncode == 0, done.stdout
    assert "/hpc-agent/environment/bin/python /usr/local /hpc-agent/work/code" in done.stdout
    assert done.stdout.rstrip().endswith("1.5\nProcess completed successfully")


def test_variables_folders_and_what_means_nothing_to_it(
    site: ContainerSite, runtime: Apptainer, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("from outside")
    code = "import os; print(os.environ['WORD'], open('/data/data').read(), 'SECRET_OF_NODE' in os.environ)"
    arguments = f"-e 'WORD=two words' -v {tmp_path}:/data:ro --shm-size=1g"
    task = site.task(code, str(runtime.sif("bare")), arguments, "echo set up")
    done = site.execute(task, SECRET_OF_NODE="x", CLEARML_AGENT__AGENT__ALLOWED_DOCKER_EXTRA_ARGS='["volume"]')
    assert "set up\ntwo words from outside False" in done.stdout
    assert "--shm-size=1g means nothing to this runtime: left out" in done.stdout


def test_exit_code_and_sigterm(site: ContainerSite, runtime: Apptainer) -> None:
    image = str(runtime.sif("bare"))
    assert site.execute(site.task("raise SystemExit(7)", image)).returncode == 7
    task = site.task(POLITE, image)
    with site.executing(task) as agent:
        agent.terminate()
        assert agent.wait(60) in (1, 128 + signal.SIGTERM)  # of the process, or of Apptainer, which gets the signal too
    assert "cleaned up" in site.console(task)
    assert site.status(task) is TaskStatus.STOPPED


def test_two_that_want_an_image_at_once_fetch_and_convert_it_once(site: ContainerSite, layout: Path) -> None:
    both_are_there = threading.Event()
    with serving(layout, "lab/tools:1", both_are_there) as (host, asked):
        image = f"docker://{host}/lab/tools:1"
        tasks = [site.task(f"{WHERE}print('in the image')", image) for _ in range(2)]

        def waiting() -> int:
            return sum("Waiting for another process that fetches the image" in site.console(task) for task in tasks)

        agents = [site.start("execute", "--id", task, log=f"{task}.log") for task in tasks]
        try:
            wait_until("one to wait for the other", waiting)
        finally:
            both_are_there.set()
        assert [agent.wait(HANG_S) for agent in agents] == [0, 0], [site.console(task) for task in tasks]
    assert all("in the image" in site.console(task) for task in tasks) and waiting() == 1
    blobs = [path for path in asked if "/blobs/" in path]
    assert len(blobs) == len(set(blobs)), asked
    assert [path.name for path in (site.root / "images").glob("[!.]*")] == [f"{host.replace(':', '+')}%lab%tools+1.sif"]
    # What is there needs no network.
    assert site.execute(tasks[0], "--standalone-mode").returncode == 0


def test_a_sif_from_a_registry(site: ContainerSite, runtime: Apptainer, tmp_path: Path) -> None:
    with serving(sif_layout(runtime.sif("bare"), tmp_path / "sif"), "lab/made:2") as (host, _):
        done = site.execute(site.task(f"{WHERE}print('in the image')", f"oras://{host}/lab/made:2"))
    assert done.returncode == 0, done.stdout
    assert "in the image" in done.stdout


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ("/no/such.sif", "the image /no/such.sif is not there; is the path right, on all nodes?"),
        ("docker://{host}/lab/gone:1", "cannot be fetched: its registry has no image of this name and tag: "),
        ("oras://{host}/lab/tools:nine", "cannot be fetched: its registry has no image of this name and tag: "),
        ("{folder}/text.sif", "text.sif does not run: "),
    ],
)
def test_wrong_images(site: ContainerSite, layout: Path, tmp_path: Path, image: str, sentence: str) -> None:
    (tmp_path / "text.sif").write_text("not an image")
    with serving(layout, "lab/tools:1") as (host, _):
        task = site.task(WHERE, image.format(host=host, folder=tmp_path))
        assert site.execute(task).returncode == 1
    assert sentence in site.reason(task), site.reason(task)


def test_a_registry_that_is_away_is_waited_for(site: ContainerSite, layout: Path) -> None:
    with serving(layout, "lab/tools:1") as (host, _):
        pass
    task = site.task(WHERE, f"docker://{host}/lab/tools:1")
    with site.executing(task, until="Retrying for up to 5 minutes") as agent:
        agent.terminate()
        agent.wait(HANG_S)
    assert "its registry does not answer" in site.console(task)


def test_our_python_in_an_image_without_one(site: ContainerSite, runtime: Apptainer) -> None:
    done = site.execute(site.task(WHERE, str(runtime.sif("bare"))))
    assert f"/hpc-agent/environment/bin/python {sys.base_prefix} /hpc-agent/work/code" in done.stdout
