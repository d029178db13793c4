"""What may happen to a daemon while jobs wait and run: its machine, its folders, its disk, its clock."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from e2e_site import Site
from waiting import contains, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

HELD = """
import os, time
with open({ledger!r}, "a") as ledger:
    ledger.write("start\\n")
print("begun", flush=True)
while not os.path.exists({go!r}):
    time.sleep(0.1)
"""
JUMPING = """
import sys
from datetime import timedelta
if "daemon" in sys.orig_argv:
    from hpc_agent.clock import SystemClock
    now = SystemClock.now
    SystemClock.now = lambda self: now(self) + timedelta(seconds=float(open({ahead!r}).read()))
"""


class Held:
    """A task that runs until it is let go, and whose process counts its starts."""

    def __init__(self, site: Site, name: str, last: str = "print('over', flush=True)") -> None:
        self._site = site
        self._go = site.folder / f"go-{name}"
        self._ledger = site.folder / f"starts-{name}"
        self.id: TaskId = site.bare_task(HELD.format(ledger=str(self._ledger), go=str(self._go)) + last + "\n")

    def begin(self) -> Held:
        wait_until("its first line", self.lines, contains("begun"))
        return self

    def lines(self) -> list[str]:
        own = ("begun", "over")
        return [line for line in self._site.console(self.id).splitlines() if line in own]

    def let_go(self) -> None:
        self._go.touch()

    def check_that_it_ran_once(self) -> None:
        assert self._site.wait_for_end(self.id) is TaskStatus.COMPLETED
        assert self._ledger.read_text() == "start\n"
        assert self.lines() == ["begun", "over"]


@pytest.fixture
def root(site: Site) -> Path:
    """A state folder of the test's own."""
    folder = site.folder / "state"
    folder.mkdir()
    lines = f'hpc {{ root: "{folder}", lost_after: 30 }}\n'
    site.conf.write_text(site.conf.read_text() + lines)
    return folder


@pytest.mark.root
def test_killed_on_one_login_node_it_goes_on_at_another(site: Site, root: Path) -> None:
    def on(host: str) -> list[str]:
        return ["unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$@"', "sh"]

    first = site.daemon(under=on("login1"))
    runs = Held(site, "runs").begin()
    waits = site.bare_task("print('ran')\n", enqueue=False)
    site.properties(waits, num_gpus="4")
    first.kill()
    first.wait()
    site.client.tasks.enqueue(waits, site.queue_id)
    site.daemon(under=on("login2"))
    runs.let_go()
    runs.check_that_it_ran_once()
    assert site.wait_for_end(waits) is TaskStatus.COMPLETED


def deleted(folder: Path) -> bool:
    try:
        shutil.rmtree(folder)
    except OSError:
        # Something was written there, or removed, meanwhile.
        return not folder.exists()
    return True


def test_runs_are_deleted_under_its_hands(site: Site, root: Path) -> None:
    site.daemon()
    runs = Held(site, "deleted").begin()
    wait_until("its runs to be deleted", partial(deleted, root / "runs"))
    runs.let_go()
    runs.check_that_it_ran_once()
    next_one = site.bare_task("print('ran')\n")
    assert site.wait_for_end(next_one) is TaskStatus.COMPLETED


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "state", str(root)], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


@pytest.mark.root
def test_a_full_disk_is_outlived(site: Site, small_disk: Path) -> None:
    site.daemon()
    # Its last line comes when there is room again: what a full disk does to print() is the script's own affair.
    runs = Held(site, "full").begin()
    silent = Held(site, "silent", last="").begin()
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4096)
    silent.let_go()
    waits = site.bare_task("print('ran')\n")
    assert site.wait_for_end(silent.id) is TaskStatus.COMPLETED
    assert site.status(waits) is TaskStatus.QUEUED
    filler.unlink()
    runs.let_go()
    runs.check_that_it_ran_once()
    assert site.wait_for_end(waits) is TaskStatus.COMPLETED


def test_its_working_folder_is_removed(site: Site, root: Path) -> None:
    gone = site.folder / "gone"
    gone.mkdir()
    site.daemon(cwd=gone)
    assert site.wait_for_end(site.bare_task("print('ran')\n")) is TaskStatus.COMPLETED
    gone.rmdir()
    assert site.wait_for_end(site.bare_task("print('ran')\n")) is TaskStatus.COMPLETED


@pytest.mark.parametrize("jump", ["10800", "-10800"])
def test_the_clock_jumps(site: Site, root: Path, jump: str) -> None:
    """Of the daemon alone; the files' times and Slurm's stay as they are. Seconds."""
    ahead = site.folder / "ahead"

    def set_to(seconds: str) -> None:
        """Never empty, whenever the daemon reads it."""
        (site.folder / "next").write_text(seconds)
        (site.folder / "next").rename(ahead)

    set_to("0")
    (site.folder / "sitecustomize.py").write_text(JUMPING.format(ahead=str(ahead)))
    site.daemon(PYTHONPATH=str(site.folder))
    runs = Held(site, "runs").begin()
    dies = Held(site, "dies").begin()
    set_to(jump)
    during = Held(site, "during").begin()
    [job] = site.jobs(dies.id)
    site.slurm("scancel", job)
    assert site.wait_for_end(dies.id) is TaskStatus.STOPPED
    # By whom is not waited for here: how new the end is cannot be said by a clock that jumped.
    assert f"job {job} was cancelled" in site.reason(dies.id)
    set_to("0")
    runs.let_go()
    during.let_go()
    runs.check_that_it_ran_once()
    during.check_that_it_ran_once()


def test_a_site_without_accounting_has_verdicts(site: Site, root: Path) -> None:
    commands = site.folder / "bin"
    commands.mkdir()
    sacct = commands / "sacct"
    sacct.write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    sacct.chmod(0o755)
    site.daemon(PATH=f"{commands}:{site.env['PATH']}")
    runs, cancelled = Held(site, "runs").begin(), Held(site, "cancelled").begin()
    [job] = site.jobs(cancelled.id)
    site.slurm("scancel", job)
    assert site.wait_for_end(cancelled.id) is TaskStatus.STOPPED
    assert f"job {job} was cancelled" in site.reason(cancelled.id)
    runs.let_go()
    runs.check_that_it_ran_once()
    parent_dies = site.bare_task(
        "import os, signal\nprint('begun', flush=True)\nos.kill(os.getppid(), signal.SIGKILL)\n"
    )
    assert site.wait_for_end(parent_dies) is TaskStatus.FAILED
    assert "left no report" in site.reason(parent_dies)
