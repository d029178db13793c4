"""``daemon --docker`` with real podman: tasks run in the image that they name, else in the one that the flag names."""

from __future__ import annotations

import pytest
from container_images import Podman, podman
from e2e_site import Site
from waiting import equals, wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.podman

WHERE = """
import os
print("inside", os.path.exists("/run/.containerenv"))
print("worker", os.environ["CLEARML_WORKER_ID"])
print("variable", os.environ.get("GIVEN"))
print("gpus", os.environ.get("NVIDIA_VISIBLE_DEVICES"))
"""


@pytest.fixture
def runtime(machine: Site) -> Podman:
    runtime = podman()
    machine.env = {**machine.env, **runtime.env}
    return runtime


@pytest.fixture
def image(runtime: Podman) -> str:
    return runtime.image("python")


def test_the_flags_image_and_arguments_are_for_tasks_that_name_none(machine: Site, runtime: Podman, image: str) -> None:
    bare, own = machine.bare_task(WHERE, enqueue=False), machine.bare_task(WHERE, enqueue=False)
    machine.client.tasks.edit(own, {"container": {"image": image, "arguments": "-e GIVEN=task"}})
    for task in (bare, own):
        machine.client.tasks.enqueue(task, machine.queue_id)
    flags = ("--docker", image, "-e", "GIVEN=flag", "--force-current-version", "--cpu-only")
    machine.daemon(*flags, CLEARML_AGENT__hpc__container__runtime="podman")
    for task, given in ((bare, "flag"), (own, "task")):
        assert machine.wait_for_end(task) is TaskStatus.COMPLETED, machine.console(task)
        lines = machine.console(task).splitlines()
        assert f"variable {given}" in lines
        assert "inside True" in lines and "gpus none" in lines
        assert f"worker box:cpu:0:{task}" in lines
    # A clone of it gets the container that it ran in.
    wait_until("the image", lambda: machine.client.tasks.get_object(bare)["container"].get("image"), equals(image))
    [script] = (machine.root / "runs" / bare).glob("*/job.sbatch")
    assert "--standalone-mode --docker --cpu-only\n" in script.read_text()
    assert runtime.containers() == []


def test_the_configurations_image_without_any_in_the_flag(machine: Site, runtime: Podman, image: str) -> None:
    task = machine.bare_task(WHERE)
    variables = {"CLEARML_DOCKER_IMAGE": image, "CLEARML_AGENT__hpc__container__runtime": "podman"}
    machine.daemon("--docker", CLEARML_CPU_ONLY="1", **variables)
    assert machine.wait_for_end(task) is TaskStatus.COMPLETED, machine.console(task)
    assert "inside True" in machine.console(task)
