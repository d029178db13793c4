"""``hpc.agent_archive``: jobs on a real Slurm run this program from a copy on their node's own disk."""

from __future__ import annotations

import pytest
from e2e_site import Site
from waiting import wait_until

from hpc_agent.domain.status import TaskStatus

pytestmark = pytest.mark.slurm

AGENT = """
from pathlib import Path
import os
pid = os.getppid()
while pid > 1:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\\0")
    if "hpc_agent" in words:
        print("agent", words[0])
        break
    pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
"""


def agent_of(site: Site, text: str) -> list[str]:
    """Interpreters of the agent of a task that has ended, as the task saw it."""
    task = site.bare_task(text)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    return [line.partition(" ")[2] for line in site.lines(task) if line.startswith("agent ")]


def test_jobs_run_from_one_copy_per_node(site: Site) -> None:
    scratch = site.folder / "disk"
    site.configure(f'hpc.agent_archive: true\nhpc.scratch_dir: "{scratch}"')
    site.daemon()
    [first] = agent_of(site, AGENT)
    assert first.startswith(f"{scratch}/hpc-agent-") and first.endswith("/bin/python")
    assert agent_of(site, AGENT) == [first]


def test_without_the_archive_jobs_run_what_is_installed(site: Site) -> None:
    scratch = site.folder / "disk"
    site.configure(f'hpc.agent_archive: true\nhpc.scratch_dir: "{scratch}"')
    site.daemon()
    log = site.folder / "daemon.log"
    wait_until("the archive, or that of another test, to be found", lambda: "daemon.started" in log.read_text())
    for archive in site.root.glob("agents/*.tar.gz"):
        archive.unlink()
    task = site.bare_task(AGENT)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert not any(line.startswith(f"agent {scratch}") for line in site.lines(task))
    [output] = site.root.glob(f"runs/{task}/*/job.out")
    assert "no copy of the program on this node" in output.read_text()
