"""Containers under real Slurm: the daemon stages for the image, the job runs in it without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from container_images import charliecloud
from e2e_site import Site
from waiting import contains, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.charliecloud

RUNTIME = {"CLEARML_AGENT__HPC__CONTAINER__RUNTIME": "charliecloud"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    return {kind: charliecloud(kind, folder) for kind in ("bare", "python")}


def enqueued(site: Site, text: str, image: Path, **container: str) -> TaskId:
    task = site.bare_task(text, enqueue=False)
    site.client.tasks.edit(task, {"container": {"image": str(image), **container}})
    site.client.tasks.enqueue(task, site.queue_id)
    return task


def test_a_queued_task_runs_in_its_image(site: Site, images: dict[str, Path]) -> None:
    code = "import os, sys, onlyinimage; print(sys.base_prefix, os.environ['SLURM_JOB_ID'], os.environ['WORD'])"
    task = enqueued(site, code, images["python"], arguments="-e WORD=hello", setup_shell_script="echo set up")
    site.daemon(**RUNTIME)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    console = site.console(task)
    assert f"inside charliecloud: {images['python']}" in console
    assert "set up\n/usr/local " in console and " hello\n" in console
    # Built while it was staged, for the job has no network.
    assert "Building environment" not in console


def test_scancel_ends_what_runs_in_the_image(site: Site, images: dict[str, Path]) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('cleaned up', flush=True), sys.exit(0)))\n"
        "print('started', flush=True)\n"
        "time.sleep(300)\n"
    )
    task = enqueued(site, code, images["bare"])
    site.daemon(**RUNTIME)
    wait_until("the task to start", lambda: site.console(task), contains("started"))
    site.slurm("scancel", *site.jobs(task))
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert "cleaned up" in site.console(task)


def test_an_image_that_is_not_there_fails_its_task_before_a_job_is_asked_for(site: Site, tmp_path: Path) -> None:
    task = enqueued(site, "print(1)", tmp_path / "gone")
    site.daemon(**RUNTIME)
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "the image" in site.reason(task) and "is not there" in site.reason(task)
    assert site.jobs(task) == []
