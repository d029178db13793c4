"""Wrong input: one clear sentence in the right place, and no task is lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from e2e_site import Site
from waiting import equals, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

HELLO = "print('hello')\n"


@pytest.fixture
def served(site: Site) -> Iterator[Site]:
    """A site whose daemon must live through everything and still run a good task at the end."""
    daemon = site.daemon()
    yield site
    good = site.bare_task(HELLO)
    assert site.wait_for_end(good) is TaskStatus.COMPLETED
    assert daemon.poll() is None


def assert_fails_before_any_job(site: Site, task: TaskId, *words: str) -> None:
    """The task ends as failed, its reason and console name the cause, and Slurm never heard of it."""
    assert site.wait_for_end(task) is TaskStatus.FAILED
    reason = site.reason(task)
    for word in words:
        assert word in reason
        assert word in site.console(task)
    assert "\n" not in reason.strip()
    assert f"clearml_task_{task}" not in site.slurm("sacct", "-X", "-n", "-P", "-o", "JobName")


def test_a_requirement_that_does_not_exist(served: Site) -> None:
    task = served.bare_task(HELLO, requirements={"pip": "no-such-package-of-ours==9.9"})
    assert_fails_before_any_job(served, task, "no-such-package-of-ours")


def test_a_requirement_line_that_means_nothing(served: Site) -> None:
    task = served.bare_task(HELLO, requirements={"pip": "numpy===<>?"})
    assert_fails_before_any_job(served, task, "numpy===<>?")


def test_a_repository_that_does_not_exist(served: Site) -> None:
    missing = f"file://{served.folder}/none.git"
    task = served.bare_task("", repository=missing, entry_point="train.py", branch="main", diff="")
    assert_fails_before_any_job(served, task, missing)


def test_gpus_beyond_the_queues_maximum(served: Site) -> None:
    task = served.bare_task(HELLO, enqueue=False)
    served.properties(task, num_gpus="64")
    served.client.tasks.enqueue(task, served.queue_id)
    assert_fails_before_any_job(served, task, "num_gpus is 64", "at most 4")


def test_a_partition_that_does_not_exist(served: Site) -> None:
    task = served.bare_task(HELLO, enqueue=False)
    served.properties(task, partition="none")
    served.client.tasks.enqueue(task, served.queue_id)
    assert_fails_before_any_job(served, task, "invalid partition")


def test_more_than_the_cluster_has(served: Site) -> None:
    task = served.bare_task(HELLO, enqueue=False)
    served.properties(task, num_cpus="100000")
    served.client.tasks.enqueue(task, served.queue_id)
    assert_fails_before_any_job(served, task, "Batch job submission failed")


@pytest.mark.parametrize(
    "fields",
    [
        {"hyperparams": {"properties": {"num_gpus": {"section": "properties", "name": "num_gpus", "value": "x\ny"}}}},
        {"script": {"entry_point": "../../../etc/passwd", "diff": "", "requirements": {"pip": ""}}},
        {"script": {}},
    ],
)
def test_a_task_that_makes_no_sense(served: Site, fields: dict[str, object]) -> None:
    task = served.client.tasks.create(
        {"name": "broken", "type": "training", "project": served.client.projects.find_or_create("e2e"), **fields}
    )
    served.client.tasks.enqueue(task, served.queue_id)
    assert served.wait_for_end(task) is TaskStatus.FAILED
    assert served.reason(task)


def test_a_template_with_an_undefined_variable(site: Site) -> None:
    template = site.folder / "site.j2"
    template.write_text("#!/bin/bash\n{{ resources.gpu_count }}\n")
    site.conf.write_text(
        site.conf.read_text() + f'\nhpc {{ queues {{ "{site.queue}" {{ template: "{template}" }} }} }}\n'
    )
    task = site.bare_task(HELLO)
    site.daemon()
    assert_fails_before_any_job(site, task, "gpu_count", "site.j2")


def test_a_wrong_secret(site: Site) -> None:
    done = site.agent("daemon", "--queue", site.queue, "--once", CLEARML_API_SECRET_KEY="wrong")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "check the access key and secret" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for command in (["daemon", "--queue", site.queue, "--once"], ["list"]):
        done = site.agent(*command, CLEARML_API_HOST=f"http://127.0.0.1:{port}")
        assert done.returncode == 69
        assert f"127.0.0.1:{port} cannot be reached" in done.stderr
        assert "Connection refused" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_page_that_is_not_an_api_server(site: Site) -> None:
    url = site.client.session.settings.files_server
    done = site.agent("list", CLEARML_API_HOST=url)
    assert done.returncode == 2
    assert "API server" in done.stderr


def test_an_unknown_queue(site: Site) -> None:
    done = site.agent("daemon", "--queue", f"{site.queue}x", "--once")
    assert done.returncode == 2
    assert f'there is no queue "{site.queue}x"; did you mean {site.queue}' in done.stderr


def test_an_unknown_task(site: Site) -> None:
    for name, words in (("f" * 32, "f" * 32), ("no such name", 'no task has the id or name "no such name"')):
        done = site.agent("execute", "--id", name, "--require-queue")
        assert done.returncode == 66
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_execute_by_hand_tells_terminal_and_task_what_is_missing(site: Site) -> None:
    task = site.bare_task(HELLO, requirements={"pip": "idna"})
    done = site.agent("execute", "--id", task, "--require-queue", "--standalone-mode")
    assert done.returncode == 1
    assert f"hpc-agent cache warm --id {task}" in done.stdout
    assert site.status(task) is TaskStatus.FAILED
    assert "hpc-agent cache warm" in site.reason(task)


def test_slurm_that_does_not_answer_costs_no_task(site: Site) -> None:
    task = site.bare_task(HELLO)
    done = site.agent("daemon", "--queue", site.queue, "--once", SLURM_CONF="/nonexistent/slurm.conf")
    assert done.returncode == 69
    assert site.status(task) is TaskStatus.QUEUED
    site.daemon()
    wait_until("the task to run anyway", lambda: site.status(task), equals(TaskStatus.COMPLETED))
