"""Tasks that travel to a real Slurm as one job array: each ends in its own way, as a job of its own would."""

from __future__ import annotations

import pytest
from e2e_site import UNTIL_GO, Site

from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.slurm

VISIBLE = "import os\nprint('index', os.environ.get('SLURM_ARRAY_TASK_ID'))\n"


def test_each_task_of_an_array_has_its_own_end(site: Site) -> None:
    completes = site.bare_task(VISIBLE)
    fails = site.bare_task("import sys\nprint('bye')\nsys.exit(3)\n")
    aborted = site.bare_task(UNTIL_GO.format(go=str(site.folder / "never")))
    tasks = [completes, fails, aborted]
    # Nothing is staged: all are due in the first pass.
    site.configure("hpc.slurm.array_size: 10\nhpc.envs.build_on: compute")
    site.daemon()
    assert site.wait_for_end(completes) is TaskStatus.COMPLETED
    assert site.wait_for_end(fails) is TaskStatus.FAILED
    site.wait_for_status(aborted, TaskStatus.IN_PROGRESS)
    site.client.session.call("tasks.stop", {"task": aborted})
    assert site.wait_for_end(aborted) is TaskStatus.STOPPED
    jobs = [job for task in tasks for job in site.submitted(task)]
    assert sorted(job.partition("_")[2] for job in jobs) == ["0", "1", "2"]
    assert len({job.partition("_")[0] for job in jobs}) == 1
    assert "index None" in site.lines(completes), "the task does not know that it is an element"
    assert "bye" in site.lines(fails)
    assert "exit code 3" in site.reason(fails)
