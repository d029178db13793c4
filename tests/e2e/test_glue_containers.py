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


def template(name: str) -> str:
    return (EXAMPLES / f"{name}.template").read_text()


def serve(site: Site, standins: StandIns, text: str, *flags: str) -> None:
    (site.folder / "slurm.template").write_text(text)
    env = {
        "PATH": f"{standins.folder}:{os.environ['PATH']}",
        "CLEARML_AGENT__HPC__CONTAINER__PROGRAM": '""',
        # pyxis shows the image's own Python in jobs only.
        "CLEARML_AGENT__HPC__ENVS__BUILD_ON": "job",
    }
    site.daemon("--template-files", "slurm.template", *flags, **env)


def job_output(site: Site, task: TaskId) -> Path:
    [attempt] = (site.root / "runs" / task).iterdir()
    return attempt / "job.out"


def test_singularity_mode(site: Site, standins: StandIns) -> None:
    image = tree("python")
    task = enqueued(site, CODE, image)
    serve(site, standins, template("singularity"), "--singularity-mode")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "in /usr/local True /usr/share" in site.lines(task)
    [call] = standins.calls("singularity", "--uts")
    assert call.startswith("exec --uts --bind /usr/share:/data --bind ") and f" {image} /bin/sh -c " in call
    wait_until("the script's end", job_output(site, task).read_text, contains("the script ends with 0"))


def test_singularity_without_srun_and_with_the_default_image(site: Site, standins: StandIns) -> None:
    """The form of the older pages."""
    image = tree("python")
    site.configure(f'agent.default_docker.image: "{image}"')
    task = enqueued(site, CODE, None)
    text = template("singularity").replace("srun singularity", "singularity")
    serve(site, standins, text, "--singularity-mode")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "in /usr/local True /usr/share" in site.lines(task)
    assert standins.calls("srun", "singularity") == [] and standins.calls("singularity", f" {image} ")


@pytest.mark.parametrize(
    ("name", "flags"),
    [("singularity", ["--singularity-mode"]), ("pyxis-directives", []), ("pyxis-srun", ["--srun-delegation"])],
)
def test_an_abort_gives_what_the_template_started_its_grace_time(
    site: Site, standins: StandIns, name: str, flags: list[str]
) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print('cleaned up', flush=True), sys.exit(0)))\n"
        "print('begun', flush=True)\n"
        "time.sleep(300)\n"
    )
    task = enqueued(site, code, tree("python"))
    serve(site, standins, template(name), *flags)
    site.begun(task)
    site.client.session.call("tasks.stop", {"task": task})
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert "cleaned up" in site.lines(task)


def test_a_task_without_an_image_fails_with_a_sentence(site: Site, standins: StandIns) -> None:
    task = enqueued(site, CODE, None)
    serve(site, standins, template("singularity"), "--singularity-mode")
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "names no image" in site.reason(task)


def test_pyxis_by_directives(site: Site, standins: StandIns) -> None:
    image = tree("python")
    task = enqueued(site, CODE.replace("os.listdir('/data')[:1] != [], os.environ['DATA']", "'x'"), image)
    serve(site, standins, template("pyxis-directives"))
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "in /usr/local x" in site.lines(task)
    [call] = standins.calls("srun", "--container-remap-root", "--container-writable")
    assert call.startswith(f"--container-image={image} --container-mounts=")


def test_pyxis_by_a_function_of_the_template(site: Site, standins: StandIns) -> None:
    image = tree("python")
    task = enqueued(site, f"{CODE}; print(os.path.getsize('/etc/clearml.conf') > 0)", image)
    serve(site, standins, template("pyxis-srun"), "--srun-delegation")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert {"in /usr/local True /usr/share", "True"} <= {*site.lines(task)}
    [call] = standins.calls("srun", "--container-remap-root")
    assert call.count("--container-mounts=") == 1 and ",/usr/share:/data," in call


@pytest.mark.parametrize(("name", "flags"), [("singularity", ["--singularity-mode"]), ("pyxis-directives", [])])
def test_on_many_nodes_each_rank_is_started_by_the_template(
    site: Site, standins: StandIns, name: str, flags: list[str]
) -> None:
    code = "import os, onlyinimage; print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])"
    image = tree("python")
    task = site.bare_task(code, enqueue=False)
    site.client.tasks.edit(task, {"container": {"image": str(image)}})
    site.properties(task, num_nodes="2")
    site.client.tasks.enqueue(task, site.queue_id)
    nodes = "#SBATCH --nodes=${CLEARML_TASK.hyperparams.properties.num_nodes.value:1}\n#SBATCH --ntasks-per-node=1\n"
    text = template(name).replace("#SBATCH --nodes=1\n", "").replace("#SBATCH --ntasks=1\n", nodes)
    serve(site, standins, text, *flags)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert {line.rpartition("] ")[2] for line in site.lines(task) if "rank " in line} >= {"rank 0 of 2", "rank 1 of 2"}
