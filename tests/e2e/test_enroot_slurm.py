"""enroot, and pyxis with its steps, under real Slurm: stand-ins that truly run what their words say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from apptainer_images import apptainer, enroot_programs
from container_images import tree
from container_registry import serving
from e2e_site import Site
from oci_layout import image_layout
from waiting import contains, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.apptainer

IN_IMAGE = (
    "import os; print('runs in', os.environ['SLURM_JOB_ID'], os.environ.get('SLURM_STEP_ID', 'batch'), "
    "os.path.exists('/usr/share/doc'))\n"
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    layout = image_layout(tree("bare"), tmp_path_factory.mktemp("registry") / "image")
    with serving(layout, "lab/tools:1") as (host, _):
        yield host


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    return enroot_programs(apptainer(), tmp_path / "programs")


def settings(site: Site, runtime: str, programs: Path) -> dict[str, str]:
    program = programs / ("srun" if runtime == "pyxis" else "enroot")
    return {
        "CLEARML_AGENT__HPC__CONTAINER__RUNTIME": runtime,
        "CLEARML_AGENT__HPC__CONTAINER__PROGRAM": str(program),
        "CLEARML_AGENT__HPC__CONTAINER__IMAGES_DIR": f'"{site.folder}/images"',
        # pyxis fetches with enroot.
        "PATH": f"{programs.parent}/enroot-only:{site.env['PATH']}",
    }


def enqueued(site: Site, text: str, image: str) -> TaskId:
    (site.folder / "enroot-only").mkdir(exist_ok=True)
    link = site.folder / "enroot-only" / "enroot"
    if not link.exists():
        link.symlink_to(site.folder / "programs" / "enroot")
    task = site.bare_task(text, enqueue=False)
    site.client.tasks.edit(task, {"container": {"image": image, "arguments": "-e WORD=hello"}})
    site.client.tasks.enqueue(task, site.queue_id)
    return task


def calls(programs: Path, name: str) -> list[list[str]]:
    lines = (programs / "calls").read_text().splitlines()
    return [words for words in map(json.loads, lines) if words[:1] == [name]]


@pytest.mark.parametrize("runtime", ["enroot", "pyxis"])
def test_a_task_in_an_image_that_was_imported_for_it(site: Site, registry: str, programs: Path, runtime: str) -> None:
    task = enqueued(site, f"{IN_IMAGE}print(os.environ['WORD'])", f"{registry}/lab/tools:1")
    site.daemon(**settings(site, runtime, programs))
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    [job] = site.submitted(task)
    console = site.console(task)
    assert f"runs in {job} " in console and " False\nhello" in console
    image = f"{site.folder}/images/{registry.replace(':', '+')}%lab%tools+1.sqsh"
    [fetched] = [words for words in calls(programs, "enroot") if words[1] == "import"]
    assert fetched[-1] == f"docker://{registry}#lab/tools:1"
    if runtime == "pyxis":
        # The login node has looked into nothing: srun would have waited there for a job.
        assert all(f"--container-image={image}" in words for words in calls(programs, "srun"))
        assert all(any(word.startswith("--nodelist=") for word in words) for words in calls(programs, "srun"))
        assert f"runs in {job} batch" not in console
    else:
        assert all(image in words for words in calls(programs, "enroot") if words[1] == "start")


SAVES = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print('cleaned up', flush=True), sys.exit(0)))\n"
    "print('started', flush=True)\n"
    "time.sleep(300)\n"
)
"""A program that takes some of its grace time."""


@pytest.mark.parametrize("runtime", ["enroot", "pyxis"])
def test_scancel_ends_what_runs_in_the_image(site: Site, registry: str, programs: Path, runtime: str) -> None:
    task = enqueued(site, SAVES, f"{registry}/lab/tools:1")
    site.daemon(**settings(site, runtime, programs))
    wait_until("the task to start", lambda: site.console(task), contains("started"))
    site.slurm("scancel", *site.jobs(task))
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert "cleaned up" in site.console(task)


@pytest.mark.parametrize("runtime", ["enroot", "pyxis"])
def test_an_abort_gives_what_runs_in_the_image_its_grace_time(
    site: Site, registry: str, programs: Path, runtime: str
) -> None:
    task = enqueued(site, SAVES, f"{registry}/lab/tools:1")
    site.daemon(**settings(site, runtime, programs))
    wait_until("the task to start", lambda: site.console(task), contains("started"))
    site.client.session.call("tasks.stop", {"task": task})
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert "cleaned up" in site.console(task)


def test_an_image_that_enroot_cannot_import(site: Site, registry: str, programs: Path) -> None:
    task = enqueued(site, IN_IMAGE, f"{registry}/lab/gone:1")
    site.daemon(**settings(site, "enroot", programs))
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "lab/gone:1 cannot be fetched" in site.reason(task)
    assert site.submitted(task) == []
