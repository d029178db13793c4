"""A site whose Slurm commands are all wrapped: they greet, warn, and add a blank line."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from e2e_site import Site
from sbatch_bench import Person
from waiting import contains, wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel")
WRAPPER = """#!/bin/bash
echo "Welcome to the cluster! Maintenance on Monday, ask 4711 for help."
echo "warning: your project has used 7 of 8 hours" >&2
echo
{real} "$@"
code=$?
echo
echo "JobID|State|have a nice day"
exit $code
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    folder = tmp_path / "wrappers"
    folder.mkdir()
    for name in COMMANDS:
        (folder / name).write_text(WRAPPER.format(real=shutil.which(name)))
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_tasks_go_from_their_queue_to_their_end(site: Site, path: str) -> None:
    good, bad = site.bare_task("print('through the wrappers')\n"), site.bare_task("raise SystemExit(3)\n")
    cut_off = site.bare_task("import time\nprint('begun', flush=True)\ntime.sleep(300)\n")
    aborted = site.bare_task("import time\nprint('begun', flush=True)\ntime.sleep(300)\n")
    site.daemon(PATH=path)
    assert site.wait_for_end(good) is TaskStatus.COMPLETED
    assert "through the wrappers" in site.console(good)
    assert site.wait_for_end(bad) is TaskStatus.FAILED
    for task in (cut_off, aborted):
        wait_until("its first line", partial(site.console, task), contains("begun"))
    [job] = site.jobs(cut_off)
    site.slurm("scancel", "--signal=KILL", "--full", job)
    assert site.wait_for_end(cut_off) is TaskStatus.STOPPED
    assert "was cancelled" in site.reason(cut_off)
    site.client.session.call("tasks.stop", {"task": aborted})
    assert site.wait_for_end(aborted) is TaskStatus.STOPPED


def test_a_persons_own_script_is_tracked(person: Person, path: str) -> None:
    person.script("#!/bin/bash\n#SBATCH -J tracked\necho from the script\nexit 4\n")
    answer = person.sbatch("train.sh", PATH=path)
    assert answer.returncode == 0
    job = next(line for line in answer.stdout.splitlines() if line.startswith("Submitted batch job")).split()[-1]
    status, reason = person.wait_for_end(job)
    assert status is TaskStatus.FAILED
    assert "exit code 4" in reason
