"""A real Apptainer under real Slurm: the daemon fetches and converts, the jobs run what lies in the shared folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from apptainer_images import Apptainer, apptainer
from container_images import tree
from container_registry import serving
from e2e_site import Site
from oci_layout import image_layout
from waiting import contains, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.apptainer

IN_IMAGE = "import os, sys; print('runs in', os.environ['SLURM_JOB_ID'], os.path.exists('/.singularity.d'))\n"


@pytest.fixture(scope="module")
def runtime() -> Apptainer:
    return apptainer()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    layout = image_layout(tree("bare"), tmp_path_factory.mktemp("registry") / "image")
    with serving(layout, "lab/tools:1") as found:
        yield found


def enqueued(site: Site, text: str, image: str, **properties: str) -> TaskId:
    task = site.bare_task(text, enqueue=False)
    site.client.tasks.edit(task, {"container": {"image": image}})
    site.properties(task, **properties)
    site.client.tasks.enqueue(task, site.queue_id)
    return task


def test_queued_tasks_share_one_conversion(
    site: Site, runtime: Apptainer, registry: tuple[str, list[str]], tmp_path: Path
) -> None:
    host, asked = registry
    tasks = [enqueued(site, IN_IMAGE, f"{host}/lab/tools:1") for _ in range(3)]
    images = tmp_path / "images"
    site.daemon(**runtime.settings, APPTAINER_NO_HTTPS="true", CLEARML_AGENT__HPC__CONTAINER__IMAGES_DIR=f'"{images}"')
    for task in tasks:
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
        console = site.console(task)
        [job] = site.submitted(task)
        assert f"runs in {job} True" in console
        # It was fetched while the task was staged, for jobs have no network.
        assert "Fetching the image" not in console
    blobs = [path for path in asked if "/blobs/" in path]
    assert len(blobs) == len(set(blobs)), asked
    assert len(list(images.glob("*.sif"))) == 1


def test_a_file_of_the_cluster_on_a_node_with_a_gpu(site: Site, runtime: Apptainer) -> None:
    task = enqueued(
        site, f"{IN_IMAGE}print('gpus', os.environ['CUDA_VISIBLE_DEVICES'])", str(runtime.sif("python")), num_gpus="2"
    )
    site.daemon(**runtime.settings)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "gpus 0,1" in site.console(task)


def test_scancel_ends_what_runs_in_the_image(site: Site, runtime: Apptainer) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('cleaned up', flush=True), sys.exit(0)))\n"
        "print('started', flush=True)\n"
        "time.sleep(300)\n"
    )
    task = enqueued(site, code, str(runtime.sif("bare")))
    site.daemon(**runtime.settings)
    wait_until("the task to start", lambda: site.console(task), contains("started"))
    site.slurm("scancel", *site.jobs(task))
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert "cleaned up" in site.console(task)


def test_a_wrong_image_fails_its_task_before_a_job_is_asked_for(
    site: Site, runtime: Apptainer, registry: tuple[str, list[str]]
) -> None:
    task = enqueued(site, IN_IMAGE, f"{registry[0]}/lab/gone:1")
    site.daemon(**runtime.settings, APPTAINER_NO_HTTPS="true")
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "its registry has no image of this name and tag" in site.reason(task)
    assert site.submitted(task) == []
