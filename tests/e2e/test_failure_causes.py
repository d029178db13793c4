"""A task that dies of something known says so: one sentence and a next step, in its console and its status reason."""

from __future__ import annotations

import pytest
from e2e_site import Site

from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

DIES = {
    "import nothing_there": "worker execution exit code 1: the Python module nothing_there is not installed; "
    "add its package to the task's requirements and enqueue the task again",
    "for step in range(20000): print('step', step)\nraise ValueError('loss is nan')": "worker execution exit code 1: "
    "ValueError: loss is nan (bare.py, line 2)",
    "open('/dev/full', 'wb', buffering=0).write(b'x')": "worker execution exit code 1: no space left on the device; "
    "free some space there, or write elsewhere",
    "import ctypes\nctypes.string_at(0)": "worker execution was ended by SIGSEGV: crashed with a segmentation fault "
    "(SIGSEGV), in compiled code; run it with PYTHONFAULTHANDLER=1 to see where; packages that do not fit together are "
    "the usual cause",
}


def test_what_a_task_died_of_is_in_its_console_and_its_reason(site: Site) -> None:
    tasks = {site.bare_task(text): reason for text, reason in DIES.items()}
    site.daemon()
    for task, reason in tasks.items():
        assert site.wait_for_end(task) is TaskStatus.FAILED
        assert site.reason(task) == reason
        assert site.lines(task)[-1] == f"Process failed: {reason}"
