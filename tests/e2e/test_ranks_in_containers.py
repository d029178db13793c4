"""Tasks on many nodes, ranks in containers: real Apptainer and Charliecloud, stand-ins of enroot and pyxis."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from apptainer_images import apptainer, enroot_programs
from container_images import charliecloud
from e2e_site import Site
from waiting import equals, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.apptainer, pytest.mark.charliecloud]

SHOW = """
import json, os
names = "RANK WORLD_SIZE LOCAL_RANK NODE_RANK MASTER_ADDR MASTER_PORT SLURM_PROCID SLURMD_NODENAME"
print("variables", json.dumps([os.environ.get(name) for name in names.split()]), os.path.exists("/usr/share/doc"))
"""


def ranks(site: Site, task: TaskId) -> list[list[str]]:
    """Each rank's variables, in order of the ranks."""
    lines = [line.partition("variables ")[2] for line in site.lines(task) if "variables " in line]
    # In the image, and not on the node, which has documents.
    assert all(line.endswith(" False") for line in lines)
    return sorted(json.loads(line.rpartition(" ")[0]) for line in lines)


def enqueued(site: Site, image: Path, text: str = SHOW, launcher: str = "srun") -> TaskId:
    task = site.bare_task(text, enqueue=False)
    site.client.tasks.edit(task, {"container": {"image": str(image)}})
    site.properties(task, num_nodes="2", num_cpus="2", ranks_per_node="2", launcher=launcher)
    site.client.tasks.enqueue(task, site.queue_id)
    return task


def image_and_settings(runtime: str, folder: Path) -> tuple[Path, dict[str, str]]:
    name = "CLEARML_AGENT__HPC__CONTAINER__RUNTIME"
    if runtime == "charliecloud":
        return charliecloud("bare", folder), {name: runtime}
    found = apptainer()
    if runtime == "apptainer":
        return found.sif("bare"), found.settings
    program = enroot_programs(found, folder / "programs") / ("srun" if runtime == "pyxis" else "enroot")
    return found.sif("bare"), {name: runtime, "CLEARML_AGENT__HPC__CONTAINER__PROGRAM": str(program)}


@pytest.mark.parametrize("runtime", ["apptainer", "charliecloud", "enroot", "pyxis"])
def test_each_rank_finds_its_own_variables_in_its_container(site: Site, tmp_path: Path, runtime: str) -> None:
    image, settings = image_and_settings(runtime, tmp_path)
    task = enqueued(site, image)
    site.daemon(**settings)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    seen = ranks(site, task)
    assert [rank[0] for rank in seen] == ["0", "1", "2", "3"]
    assert {rank[1] for rank in seen} == {"4"}
    assert [rank[2] for rank in seen] == ["0", "1", "0", "1"] and [rank[3] for rank in seen] == ["0", "0", "1", "1"]
    [(address, port)] = {(rank[4], rank[5]) for rank in seen}
    assert address and port
    assert len({rank[7] for rank in seen}) == 2


SAVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), print("cleaned up", flush=True), sys.exit(0)))
print("begun", flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize(("launcher", "processes"), [("srun", 4), ("none", 1)])
def test_an_abort_gives_steps_in_containers_their_grace_time(
    site: Site, tmp_path: Path, launcher: str, processes: int
) -> None:
    image, settings = image_and_settings("pyxis", tmp_path)
    task = enqueued(site, image, SAVES, launcher)
    site.daemon(**settings)
    wait_until("its processes", lambda: site.console(task).count("begun"), equals(processes))
    site.client.session.call("tasks.stop", {"task": task})
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert site.console(task).count("cleaned up") == processes
