"""``hpc-agent jobs``, ``why``, ``render`` and ``cancel`` on a machine without a batch system."""

from __future__ import annotations

import json

from e2e_site import UNTIL_GO, Site
from waiting import contains, wait_until

from hpc_agent.domain.status import TaskStatus


def test_a_task_of_this_machine_is_shown_explained_and_cancelled(machine: Site) -> None:
    task = machine.bare_task(UNTIL_GO.format(go=str(machine.folder / "never")))
    machine.daemon()
    wait_until("its first line", lambda: machine.console(task), contains("begun"))
    shown = machine.agent("jobs", "--json", "--queue", machine.queue)
    assert shown.returncode == 0, shown.stderr
    [row] = json.loads(shown.stdout)["jobs"]
    assert (row["task"], row["state"], row["queue"]) == (task, "running", machine.queue)
    [found] = json.loads(machine.agent("why", "--json", row["job"]).stdout)
    assert (found["task"], found["verdict"]) == (task, "running"), found
    script = machine.agent("render", "--id", task[:8])
    assert script.returncode == 0 and f"execute --id {task}" in script.stdout, script.stderr
    check = machine.agent("render", "--id", task, "--check")
    assert check.returncode == 2
    assert "the scheduler local cannot test a script without submitting it" in check.stderr
    assert machine.agent("cancel", task[:8]).returncode == 0
    assert machine.wait_for_end(task) is TaskStatus.STOPPED
