"""An upgrade as docs/lab-administration.md describes it: another folder, a link that is switched, a daemon that is
started again. Jobs of before go on with the installation that they were submitted with, and the new daemon ends what
they cannot."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from e2e_site import UNTIL_GO, Site
from waiting import wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]


def install(folder: Path) -> None:
    """As pip would: a script that names the Python of its own folder."""
    venv.create(folder, with_pip=False)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "installed.pth").write_text(f"{ROOT}\n{sysconfig.get_paths()['purelib']}\n")
    script = folder / "bin" / "hpc-agent"
    script.write_text(f"#!{folder}/bin/python\nfrom hpc_agent.cli.main import main\nmain()\n")
    script.chmod(0o755)


def switch(link: Path, version: str) -> None:
    subprocess.run(["ln", "-sfn", version, str(link)], check=True)


def serve(site: Site, link: Path) -> subprocess.Popen[bytes]:
    with (site.folder / "daemon.log").open("ab") as log:
        daemon = subprocess.Popen(
            [str(link / "bin" / "hpc-agent"), "daemon", "--queue", site.queue, "--foreground"],
            env={**site.env, "CLEARML_AGENT__hpc__poll_interval": "0.5"},
            stdout=log,
            stderr=log,
        )
    site.processes.append(daemon)
    return daemon


def python_of(site: Site, task: TaskId) -> str:
    """The version in the path of the Python that the task's job script calls."""
    [script] = (site.root / "runs" / task).glob("*/job.sbatch")
    match = re.search(r"/versions/([\d.]+)/bin/python", script.read_text())
    assert match, script.read_text()
    return match[1]


def test_jobs_of_before_an_upgrade_end_as_they_would_have(site: Site) -> None:
    versions = site.folder / "versions"
    install(versions / "0.1.0")
    install(versions / "0.2.0")
    switch(versions / "current", "0.1.0")
    daemon = serve(site, versions / "current")
    go = site.folder / "go"
    running, killed = (site.bare_task(UNTIL_GO.format(go=str(go))) for _ in range(2))
    site.begun(running)
    job = site.begun(killed)
    site.slurm("scontrol", "update", "partitionname=main", "state=down")
    try:
        pending = site.bare_task("import sys; print(sys.version_info)")
        wait_until("its job to wait", lambda: site.jobs(pending))

        done = subprocess.run(
            [str(versions / "current" / "bin" / "hpc-agent"), "daemon", "--stop"],
            env=site.env, check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "its jobs go on" in done.stdout
        assert daemon.wait(30) == 0
        switch(versions / "current", "0.2.0")
        serve(site, versions / "current")
        site.slurm("scancel", "--signal=KILL", "--full", job)
    finally:
        site.slurm("scontrol", "update", "partitionname=main", "state=up")

    assert site.wait_for_end(pending) is TaskStatus.COMPLETED
    go.touch()
    assert site.wait_for_end(running) is TaskStatus.COMPLETED
    assert site.lines(running)[-2:] == ["over", "Process completed successfully"]
    # Its agent was killed with it: the new daemon sets the status.
    assert site.wait_for_end(killed) is TaskStatus.STOPPED
    assert f"Slurm job {job} was cancelled" in site.reason(killed)
    new = site.bare_task("print(1)")
    assert site.wait_for_end(new) is TaskStatus.COMPLETED
    tasks = {"running": running, "killed": killed, "pending": pending, "new": new}
    assert {name: python_of(site, task) for name, task in tasks.items()} == {
        "running": "0.1.0", "killed": "0.1.0", "pending": "0.1.0", "new": "0.2.0"
    }  # fmt: skip
