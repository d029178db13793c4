"""Templates of the glue's form that start containers, on real Slurm: singularity, and pyxis in both ways. Stand-ins run
the commands in real images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from container_images import tree
from container_standins import StandIns
from e2e_site import Site
from waiting import contains, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.root]

EXAMPLES = Path(__file__).parents[2] / "scripts" / "examples" / "slurm-glue"
CODE = "import os, sys, onlyinimage; print('in', sys.base_prefix, os.listdir('/data')[:1] != [], os.environ['DATA'])"


@pytest.fixture
def standins(tmp_path: Path) -> StandIns:
    folder = tmp_path / "bin"
    folder.mkdir()
    return StandIns(folder)


def enqueued(site: Site, text: str, image: Path | None) -> TaskId:
    task = site.bare_task(text, enqueue=False)
    if image is not None:
        site.client.tasks.edit(task, {"container": {"image": str(image)}})
    site.client.tasks.enqueue(task, site.queue_id)
    return task


def serve(site: Site, standins: StandIns, name: str, *flags: str) -> None:
    (site.folder / "slurm.template").write_text((EXAMPLES / f"{name}.template").read_text())
    path = f"{standins.folder}:{os.environ['PATH']}"
    site.daemon("--template-files", "slurm.template", *flags, PATH=path, CLEARML_AGENT__HPC__CONTAINER__PROGRAM='""')


def job_output(site: Site, task: TaskId) -> Path:
    [attempt] = (site.root / "runs" / task).iterdir()
    return attempt / "job.out"


def test_singularity_mode(site: Site, standins: StandIns) -> None:
    image = tree("python")
    task = enqueued(site, CODE, image)
    serve(site, standins, "singularity", "--singularity-mode")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "in /usr/local True /usr/share" in site.lines(task)
    [call] = standins.calls("singularity", "--uts")
    assert call.startswith("exec --uts --bind /usr/share:/data --bind ") and f" {image} /bin/sh -c " in call
    wait_until("the script's end", job_output(site, task).read_text, contains("the script ends with 0"))


def test_an_abort_ends_what_the_template_started(site: Site, standins: StandIns) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('cleaned up', flush=True), sys.exit(0)))\n"
        "print('begun', flush=True)\n"
        "time.sleep(300)\n"
    )
    task = enqueued(site, code, tree("python"))
    serve(site, standins, "singularity", "--singularity-mode")
    site.begun(task)
    site.client.session.call("tasks.stop", {"task": task})
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert "cleaned up" in site.lines(task)


def test_a_task_without_an_image_fails_with_a_sentence(site: Site, standins: StandIns) -> None:
    task = enqueued(site, CODE, None)
    serve(site, standins, "singularity", "--singularity-mode")
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "names no image" in site.reason(task)


def test_pyxis_by_directives(site: Site, standins: StandIns) -> None:
    image = tree("python")
    task = enqueued(site, CODE.replace("os.listdir('/data')[:1] != [], os.environ['DATA']", "'x'"), image)
    serve(site, standins, "pyxis-directives")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "in /usr/local x" in site.lines(task)
    [call] = standins.calls("srun", "--container-remap-root", "--container-writable")
    assert call.startswith(f"--container-image={image} --container-mounts=")


def test_pyxis_by_a_function_of_the_template(site: Site, standins: StandIns) -> None:
    image = tree("python")
    task = enqueued(site, f"{CODE}; print(os.path.getsize('/etc/clearml.conf') > 0)", image)
    serve(site, standins, "pyxis-srun", "--srun-delegation")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert {"in /usr/local True /usr/share", "True"} <= {*site.lines(task)}
    [call] = standins.calls("srun", "--container-remap-root")
    assert call.count("--container-mounts=") == 1 and ",/usr/share:/data," in call
