"""What a daemon does where server or scheduler say less than they should: it waits, and goes on with all else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from e2e_site import UNTIL_GO, Site
from faulty_server import AWAY, faulty_server
from waiting import contains, empty, equals, wait_until

from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

ORPHAN = """
import os, signal
print("begun", flush=True)
os.kill(os.getppid(), signal.SIGKILL)
"""
NEVER = """
{% extends "base.sbatch.j2" %}
{% block directives %}{{ super() }}
#SBATCH --begin=now+1hour
{% endblock %}
"""


@pytest.fixture
def commands(site: Site) -> Path:
    """A folder that comes first on PATH; the site has a state folder of its own."""
    folder = site.folder / "bin"
    folder.mkdir()
    site.configure(f'hpc {{ root: "{site.folder}/state", lost_after: 5 }}')
    return folder


def command(commands: Path, name: str, body: str) -> None:
    """A command that notes its calls and then does ``body``; ``$real`` is the real one."""
    path = commands / name
    path.write_text(f'#!/bin/bash\nreal={shutil.which(name)}\necho "$*" >> {path}.calls\n{body}\n')
    path.chmod(0o755)


def calls(commands: Path, name: str) -> list[str]:
    noted = commands / f"{name}.calls"
    return noted.read_text().splitlines() if noted.exists() else []


def serve(site: Site, commands: Path, **env: str) -> None:
    site.daemon(PATH=f"{commands}:{site.env['PATH']}", **env)


def begun(site: Site, task: TaskId) -> str:
    wait_until("its first line", lambda: site.console(task), contains("begun"))
    [job] = site.jobs(task)
    return job


def test_while_accounting_is_away_no_job_is_lost_however_long_that_takes(site: Site, commands: Path) -> None:
    """And however little the controller remembers."""
    away = site.folder / "away"
    away.touch()
    command(commands, "sacct", f'[ -e {away} ] && {{ echo "sacct: error: no slurmdbd" >&2; exit 1; }}\nexec $real "$@"')
    command(commands, "squeue", '[[ "$*" == *--states=all* ]] && exec $real "$@" --user=nobody\nexec $real "$@"')
    task = site.bare_task(ORPHAN)
    serve(site, commands)
    wait_until("its job to end", lambda: calls(commands, "sacct"))
    log = site.folder / "daemon.log"
    first = float(os.stat(commands / "sacct.calls").st_mtime)
    wait_until("looks for longer than lost_after", lambda: os.stat(commands / "sacct.calls").st_mtime - first > 10)
    assert site.status(task) is TaskStatus.IN_PROGRESS
    assert "records.source_unavailable" in log.read_text()
    away.unlink()
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "left no report" in site.reason(task)


def test_an_sbatch_that_hangs_holds_up_its_pass_once(site: Site, commands: Path) -> None:
    command(commands, "sbatch", "sleep 600")
    command(commands, "squeue", 'exec $real "$@"')
    for _ in range(4):
        site.bare_task("")
    serve(site, commands, CLEARML_AGENT__hpc__slurm__sbatch_timeout="2")
    wait_until("a submission", lambda: calls(commands, "sbatch"))
    passes = len(calls(commands, "squeue"))
    wait_until("further passes", lambda: calls(commands, "squeue"), lambda found: len(found) > passes + 3)
    assert len(calls(commands, "sbatch")) == 1


def test_a_task_that_cannot_be_read_holds_up_no_other(site: Site, commands: Path) -> None:
    poisoned = [site.bare_task("print()\n") for _ in range(2)]
    faults = {f"tasks.get_by_id {task}": AWAY for task in poisoned}
    task = site.bare_task("print('read')\n")
    conf = site.folder / "through.conf"
    with faulty_server(site.client.session.settings.api_server, faults) as url:
        conf.write_text(f'include "{site.conf}"\napi {{ api_server: "{url}" }}\n')
        serve(site, commands, CLEARML_CONFIG_FILE=str(conf))
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
        faults.clear()
        for task in poisoned:
            assert site.wait_for_end(task) is TaskStatus.COMPLETED


def test_a_deleted_queue_stops_no_other(site: Site, commands: Path) -> None:
    runs, waits = (site.client.queues.resolve(f"{site.queue}-{name}", create=True) for name in ("runs", "waits"))
    templates = site.folder / "templates"
    templates.mkdir()
    (templates / "never.sbatch.j2").write_text(NEVER.lstrip())
    site.configure(
        f'hpc {{ template_dirs: ["{templates}"], queues {{ "{site.queue}-waits" {{ template: never.sbatch.j2 }} }} }}',
    )
    go = site.folder / "go"
    held, dies, never = (
        enqueued(site, queue, text)
        for queue, text in (
            (runs, UNTIL_GO.format(go=str(go))),
            (runs, UNTIL_GO.format(go=str(go)) + ORPHAN),
            (waits, ""),
        )
    )
    names = ["--queue", f"{site.queue}-runs", "--queue", f"{site.queue}-waits"]
    daemon = site.daemon(*names)
    for task in (held, dies):
        begun(site, task)
    wait_until("the job that waits", lambda: site.jobs(never))
    for queue in (runs, waits):
        site.client.session.call("queues.delete", {"queue": queue, "force": True})
    wait_until("its job to be cancelled", lambda: site.jobs(never), empty)
    other = site.bare_task("print('served')\n")
    assert site.wait_for_end(other) is TaskStatus.COMPLETED
    # A daemon that starts now does not know the queue; it concludes what came from it anyway.
    daemon.kill()
    daemon.wait()
    go.touch()
    site.daemon()
    assert site.wait_for_end(held) is TaskStatus.COMPLETED
    assert site.wait_for_end(dies) is TaskStatus.FAILED
    assert "left no report" in site.reason(dies)


def enqueued(site: Site, queue: QueueId, text: str) -> TaskId:
    task = site.bare_task(text, enqueue=False)
    site.client.tasks.enqueue(task, queue)
    return task


SLOW = "import time, setuptools\ntime.sleep(300)\nsetuptools.setup(name='slow')\n"


@pytest.fixture
def slow(site: Site, commands: Path) -> TaskId:
    """A task whose environment takes minutes, where that is built in a job."""
    package = site.folder / "slow"
    package.mkdir()
    (package / "setup.py").write_text(SLOW)
    site.configure('hpc { envs { build_on: "job" } }')
    return site.bare_task("", requirements={"pip": f"slow @ file://{package}"})


def stages(site: Site, task: TaskId) -> list[str]:
    rows = site.slurm("squeue", "-h", "-o", "%i %j").splitlines()
    return [row.split()[0] for row in rows if f"clearml_stage_{task}_" in row]


def test_a_staging_job_that_no_task_waits_for_is_cancelled(site: Site, slow: TaskId) -> None:
    site.daemon()
    [job] = wait_until("its staging job", lambda: stages(site, slow))
    wait_until("it to run", lambda: site.slurm("squeue", "-h", "-j", job, "-o", "%T").strip(), equals("RUNNING"))
    site.client.tasks.dequeue(slow)
    wait_until("it to be cancelled", lambda: stages(site, slow), empty)
    assert site.status(slow) is TaskStatus.CREATED


def test_cron_notices_a_staging_job_that_left_no_result(site: Site, slow: TaskId) -> None:
    """Each of its passes is a process of its own."""

    def passed() -> bool:
        assert site.agent("daemon", "--queue", site.queue, "--once").returncode == 0
        return site.status(slow).is_final

    passed()
    [job] = wait_until("its staging job", lambda: stages(site, slow))
    site.slurm("scancel", job)
    wait_until("a verdict", passed)
    assert site.status(slow) is TaskStatus.FAILED
    assert f"job {job} was cancelled" in site.reason(slow)
