"""Job names and greetings that a daemon meets in Slurm's answers; none of them stops it or costs a task."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from e2e_site import UNTIL_GO, Site
from waiting import wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

WAITS = """
{% extends "base.sbatch.j2" %}
{% block directives %}{{ super() }}
#SBATCH --begin=now+1hour
{% endblock %}
"""
GREETS = """#!/bin/bash
echo "*** Welcome! 4711 nodes are up. ***"
echo
echo "{name}: warning: please use less" >&2
{real} "$@"
status=$?
echo "*** Bye. ***"
exit $status
"""


def wait_for_passes(site: Site, count: int) -> None:
    """By what one task after the other goes through while the daemon looks at all of them."""
    for _ in range(count):
        assert site.wait_for_end(site.bare_task("print('another')\n")) is TaskStatus.COMPLETED


def rename(site: Site, job: str, name: str) -> None:
    site.slurm("scontrol", "update", f"JobId={job}", f"JobName={name}")


@pytest.mark.parametrize("name", ["a\nb", "a\u2028\fb", "renamed"])
def test_a_job_that_renames_itself_is_there_and_ends_well(site: Site, name: str) -> None:
    go = site.folder / "go"
    site.configure(f'hpc {{ root: "{site.folder}/state", lost_after: 1 }}')
    task = site.bare_task(UNTIL_GO.format(go=str(go)))
    site.daemon()
    rename(site, site.begun(task), name)
    wait_for_passes(site, 2)
    assert site.status(task) is TaskStatus.IN_PROGRESS
    go.touch()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    log = (site.folder / "daemon.log").read_text()
    assert "task.unreadable" not in log and "task.action_failed" not in log


def test_a_waiting_job_that_was_renamed_is_not_submitted_again(site: Site) -> None:
    templates = site.folder / "templates"
    templates.mkdir()
    (templates / "waits.sbatch.j2").write_text(WAITS.lstrip())
    queue = f"{site.queue}-waits"
    waits = site.client.queues.resolve(queue, create=True)
    site.configure(
        f'hpc {{ root: "{site.folder}/state", lost_after: 1, template_dirs: ["{templates}"], '
        f'queues {{ "{queue}" {{ template: waits.sbatch.j2 }} }} }}',
    )
    task = site.bare_task("", enqueue=False)
    site.client.tasks.enqueue(task, waits)
    site.daemon("--queue", queue)
    [job] = wait_until("its job", lambda: site.jobs(task))
    wait_for_passes(site, 2)  # from then on it is known
    rename(site, job, "a\nb")
    wait_for_passes(site, 2)
    assert site.jobs(task) == []
    assert site.status(task) is TaskStatus.QUEUED
    site.client.tasks.dequeue(task)
    wait_until("it to be cancelled", lambda: job not in site.slurm("squeue", "-h", "-o", "%i").split())


def test_a_stranger_among_the_users_jobs_stops_nothing(site: Site) -> None:
    submit = ("sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap=true")
    job = site.slurm(*submit, "--job-name=x\n1 COMPLETED\u2028\f|1|1|").strip()
    try:
        site.daemon()
        wait_for_passes(site, 1)
    finally:
        site.slurm("scancel", job)


def test_a_site_whose_commands_greet_is_served(site: Site) -> None:
    folder = site.folder / "bin"
    folder.mkdir()
    for name in ("squeue", "sacct", "scontrol", "sbatch", "scancel"):
        _wrap(folder, name)
    site.daemon(PATH=f"{folder}:{site.env['PATH']}")
    good, bad = site.bare_task("print('good')\n"), site.bare_task("raise SystemExit(3)\n")
    killed = site.bare_task("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n")
    assert site.wait_for_end(good) is TaskStatus.COMPLETED
    assert site.wait_for_end(bad) is TaskStatus.FAILED
    assert site.wait_for_end(killed) is TaskStatus.FAILED
    assert "left no report" in site.reason(killed)


def _wrap(folder: Path, name: str) -> None:
    command = folder / name
    command.write_text(GREETS.format(name=name, real=shutil.which(name)))
    command.chmod(0o755)
