"""A task that the daemon cannot understand gets a message, and holds up no other task."""

from __future__ import annotations

import pytest
from e2e_site import Site
from waiting import contains, wait_until

from hpc_agent.domain.status import TaskStatus

QUICK = "print('done')"


def serve(site: Site) -> None:
    site.start("daemon", "--foreground", "--polling-interval", "0.5", "--queue", site.queue, log="daemon.log")


def test_a_run_directory_that_cannot_be_made_ends_its_task_and_the_others_go_on(machine: Site) -> None:
    poisoned, good = machine.bare_task(QUICK), machine.bare_task(QUICK)
    folder = machine.root / "runs" / poisoned
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    serve(machine)
    wait_until(
        "its message",
        lambda: machine.client.tasks.get_object(poisoned)["status_message"],
        contains("NotADirectoryError"),
    )
    wait_until("the other task", lambda: machine.status(good).is_final)
    wait_until("its end", lambda: machine.status(poisoned).is_final)
    assert (machine.status(poisoned), machine.status(good)) == (TaskStatus.FAILED, TaskStatus.COMPLETED)
    assert "could not go on with this task in 3 tries: NotADirectoryError" in machine.reason(poisoned)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("time_limit", "9" * 5000, "expected minutes or Slurm's D-HH:MM:SS"),
        ("time_limit", "0", "allows no less than 1 minutes"),
        ("memory_gb", "0", "allows no less than 0.000977"),
        ("memory_gb", "nan", "expected a number of GiB"),
        ("num_cpus", "²", "expected a whole number"),
        ("num_nodes", "2", "does not let a task set num_nodes"),
    ],
)
def test_a_property_that_is_not_an_amount_ends_its_task_with_the_rule(
    machine: Site, name: str, value: str, words: str
) -> None:
    task = machine.bare_task(QUICK, enqueue=False)
    machine.properties(task, **{name: value})
    machine.client.tasks.enqueue(task, machine.queue_id)
    machine.agent("daemon", "--once", "--queue", machine.queue)
    assert machine.status(task) is TaskStatus.FAILED
    assert words in machine.reason(task)
