"""An abort from page or SDK, whatever the task is doing, and whatever its processes do about it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from e2e_site import Site
from served_queues import serve
from waiting import HANG_S, contains, empty, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleeper = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", sleeper])
session = subprocess.Popen([sys.executable, "-c", sleeper], start_new_session=True)
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(write, str(os.getpid()).encode())
    time.sleep(600)
os.wait()
away = int(os.read(read, 20))
print("pids", os.getpid(), child.pid, session.pid, away, flush=True)
time.sleep(600)
"""
# It is not waited for the time that the callback might have taken: HANG_S would be over before.
CALLBACK = f"""
import time
from clearml import Task
task = Task.init()
def clean_up():
    print("the callback runs", flush=True)
    time.sleep(3)
    print("the callback ends", flush=True)
task.register_abort_callback(clean_up, callback_execution_timeout={2 * HANG_S:.0f})
print("begun", flush=True)
time.sleep(600)
"""
LEAVES_A_DAEMON = """
import os, subprocess, sys, time
code = "import os, time; os.setsid(); time.sleep(600)"
left = subprocess.Popen([sys.executable, "-c", code])
print("pids", left.pid, flush=True)
time.sleep(0.5)
"""
SDK_BEGINS = """
import multiprocessing, os, signal, subprocess, sys, time
from clearml import Task
Task.init()
"""
SDK_ENDS = """
try:
    print("pids", os.getpid(), *CHILDREN, flush=True)
    while True:
        time.sleep(600)
finally:
    print("finally ran", flush=True)
"""
SDK_PROGRAMS = {
    "alone": f"{SDK_BEGINS}CHILDREN = []{SDK_ENDS}",
    "with children": f"""{SDK_BEGINS}
def work():
    while True:
        time.sleep(1)
forked = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
for child in forked:
    child.start()
CHILDREN = [*(child.pid for child in forked), subprocess.Popen(["sleep", "600"]).pid]
{SDK_ENDS}""",
    "saves at SIGTERM": f"""{SDK_BEGINS}
def save(number, frame):
    time.sleep(1)
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
CHILDREN = []
{SDK_ENDS}""",
}
BUILDS_SLOWLY = """
import os, time, setuptools
open({mark!r}, "w").write(f"pids {{os.getpid()}}")
time.sleep(300)
setuptools.setup(name="slow")
"""


def abort(site: Site, task: TaskId) -> None:
    site.client.session.call("tasks.stop", {"task": task})


def pids(site: Site, task: TaskId) -> list[Path]:
    line = wait_until("its processes", lambda: [s for s in site.console(task).splitlines() if s.startswith("pids")])[0]
    return [Path(f"/proc/{pid}") for pid in line.split()[1:]]


def is_gone(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_processes_that_ignore_it_or_moved_away_are_killed_after_the_grace(site: Site) -> None:
    served = serve(site, {"family": ""})
    task = served.task("family", FAMILY)
    family = pids(site, task)
    assert not any(map(is_gone, family))
    abort(site, task)
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert all(map(is_gone, family))
    assert site.reason(task) == "aborted by its user"
    console = site.console(task)
    assert "Stopping: aborted by its user; SIGTERM is sent, and it has 5 s to end" in console
    assert "Still running when its time was over: killing it" in console
    wait_until("its job to leave", lambda: site.jobs(task), empty)


def test_what_a_script_leaves_behind_ends_with_it(site: Site) -> None:
    served = serve(site, {"leaves": ""})
    task = served.task("leaves", LEAVES_A_DAEMON)
    [left] = pids(site, task)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert is_gone(left)


def test_an_abort_while_its_environment_is_built_ends_the_build(site: Site) -> None:
    package = site.folder / "slow"
    package.mkdir()
    mark = site.folder / "builds"
    (package / "setup.py").write_text(BUILDS_SLOWLY.format(mark=str(mark)))
    task = site.bare_task("", requirements={"pip": f"slow @ file://{package}"})
    site.daemon(CLEARML_AGENT__hpc__envs__build_on="compute")
    wait_until("the build", lambda: mark.exists() and mark.read_text())
    builder = Path(f"/proc/{mark.read_text().split()[1]}")
    abort(site, task)
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert is_gone(builder)
    assert site.reason(task) == "aborted by its user"
    wait_until("its job to leave", lambda: site.jobs(task), empty)


def test_the_sdks_abort_callback_gets_the_time_it_asked_for(site: Site) -> None:
    task = site.script_task(CALLBACK)
    site.daemon()
    wait_until("its first line", lambda: site.console(task), contains("begun"))
    abort(site, task)
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    console = site.console(task)
    assert "Aborted by its user; its abort callback has" in console
    order = [console.index(line) for line in ("the callback runs", "the callback ends", "Stopping: aborted")]
    assert order == sorted(order)


def test_an_abort_of_a_requeued_task_that_waits_cancels_its_job(site: Site) -> None:
    served = serve(site, {"waits": ""})
    task = served.task("waits", "import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    wait_until("its first line", lambda: site.console(task).splitlines(), contains("begun"))
    [job] = site.jobs(task)
    site.slurm("scontrol", "requeuehold", job)
    wait_until("its message", lambda: site.message(task).startswith("requeued, waiting"))
    abort(site, task)
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert site.reason(task) == "aborted by its user while it waited to go on"
    wait_until("its job to be cancelled", lambda: site.jobs(task), empty)


@pytest.mark.parametrize("name", SDK_PROGRAMS)
def test_a_program_with_the_sdk_ends_at_sigint_and_runs_its_finally_blocks(site: Site, name: str) -> None:
    """The SDK keeps SIGTERM from a program: see ``hpc_agent.executor.sdk_signals``. What needs SIGKILL hangs here."""
    program = SDK_PROGRAMS[name]
    task = site.script_task(program)
    settings = {"CLEARML_AGENT__hpc__term_grace": str(2 * HANG_S)}
    if name == "saves at SIGTERM":  # and needs what time a busy machine takes
        settings["CLEARML_AGENT__hpc__interrupt_after"] = str(2 * HANG_S)
    site.daemon(**settings)
    family = pids(site, task)
    assert not any(map(is_gone, family))
    begun = time.monotonic()
    abort(site, task)
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    print(f"{name}: ended {time.monotonic() - begun:.1f} s after the abort")
    assert all(map(is_gone, family))
    console = site.console(task)
    assert console.count("finally ran") == 1
    assert ("SIGINT is sent" in console) is (name != "saves at SIGTERM")
    assert ("saved" in console) is (name == "saves at SIGTERM")
    assert "killing it" not in console
