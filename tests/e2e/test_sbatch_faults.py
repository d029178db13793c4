"""Whatever goes wrong with the tracking, the job is Slurm's and runs; whatever dies, the task comes to its end."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sbatch_bench import Person
from waiting import HANG_S, contains, empty, equals, wait_until

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

HELLO = "#!/bin/bash\necho hello $CLEARML_TASK_ID\n"
SLOW = "#!/bin/bash\necho begun\nuntil [ -e {go} ]; do sleep 0.2; done\necho end\n"
"""Ends when the file ``go`` is there."""
NO_SERVER = "http://127.0.0.1:9"


def slow_script(person: Person) -> Path:
    """``train.sh``; returns the file for which it waits."""
    go = person.site.folder / "go"
    person.script(SLOW.format(go=go))
    return go


def untracked(person: Person, job: str) -> str:
    """What the job printed; it ran as if we were not there."""
    assert person.wait_for_job(job) == "COMPLETED 0:0"
    return (person.site.folder / f"slurm-{job}.out").read_text()


@pytest.mark.parametrize(
    "environment",
    [
        {"CLEARML_API_HOST": NO_SERVER},
        {"CLEARML_API_SECRET_KEY": "wrong"},
        {"CLEARML_CONFIG_FILE": "/nowhere/clearml.conf"},
        {"CLEARML_AGENT__hpc__root": '"/proc/nowhere"'},
        {"CLEARML_AGENT__hpc__nonsense": "1"},
        {"PATH": "{folder}/bin"},
    ],
)
def test_without_a_server_or_a_place_the_job_is_submitted_anyway(person: Person, environment: dict[str, str]) -> None:
    bin_dir = person.site.folder / "bin"
    bin_dir.mkdir()
    for program in ("sbatch", "bash"):  # and no git
        found = shutil.which(program)
        assert found
        (bin_dir / program).symlink_to(found)
    person.script(HELLO)
    folder = str(person.site.folder)
    variables: dict[str, Any] = {name: value.replace("{folder}", folder) for name, value in environment.items()}
    answer = person.sbatch("train.sh", **variables)
    assert (answer.returncode, answer.stdout) == (0, f"Submitted batch job {answer.job}\n")
    if "PATH" in environment:  # without git there is a task, of a script without repository
        assert answer.stderr == ""
        wait_until("its follower, which ends with the test", person.follower)
        return
    [line] = answer.stderr.splitlines()
    assert line.startswith("hpc-agent: submitted without a task: ")
    assert untracked(person, answer.job) == "hello\n"


def test_a_server_that_hangs_does_not_keep_a_submission(
    person: Person, start_clearml_server: Callable[..., Any]
) -> None:
    server = start_clearml_server()
    os.kill(server.pid, signal.SIGSTOP)
    person.script(HELLO)
    # It is still stopped when the job has been submitted and has ended.
    answer = person.sbatch("--wait", "train.sh", CLEARML_CONFIG_FILE=str(server.conf))
    os.kill(server.pid, signal.SIGCONT)
    assert "hpc-agent: submitted without a task: " in answer.stderr
    assert untracked(person, answer.job) == "hello\n"


def test_a_script_from_standard_input_is_submitted_without_a_server_too(person: Person) -> None:
    answer = person.sbatch("--parsable", input=HELLO, CLEARML_API_HOST=NO_SERVER)
    assert answer.stdout == f"{answer.job}\n"
    assert untracked(person, answer.job) == "hello\n"


def test_a_refused_job_leaves_no_task_behind(person: Person) -> None:
    person.script(HELLO)
    for words in (("--partition=none",), ("--nonsense",), ("--nodes=99",)):
        assert person.sbatch(*words, "train.sh").returncode != 0
    assert person.tasks() == []
    assert not [path for path in (person.root / "sbatch").iterdir() if path.is_dir()]


def test_a_server_that_goes_away_while_the_job_runs_gets_everything_later(
    person: Person, start_clearml_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_clearml_server(tmp_path / "own")
    port = int(server.url.rsplit(":", 1)[1])
    client = Client(load(server.conf, {}).settings.api)
    go = slow_script(person)
    job = person.sbatch("train.sh", CLEARML_CONFIG_FILE=str(server.conf)).job
    [folder] = [path for path in (person.root / "sbatch").iterdir() if len(path.name) == 32]
    wait_until("the job's own process", lambda: (folder / "inside.json").exists())
    server.kill()
    go.touch()
    assert untracked(person, job) == "begun\nend\n"
    start_clearml_server(tmp_path / "own", port=port)
    task = TaskId(folder.name)
    wait_until("the final status", lambda: client.tasks.get_states([task])[task].status, equals(TaskStatus.COMPLETED))
    console = "".join(event["msg"] for event in client.events.console_after(task, 0))
    assert console == "begun\nend\n"


def inside(person: Person, job: str) -> int:
    """The process id of what watches from within the job."""
    folder = str(person.folder(job))

    def look() -> int:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--inside" in words and folder.encode() in words:
                return int(entry.parent.name)
        return 0

    return wait_until("the process in the job", look)


def test_a_killed_process_in_the_job_costs_the_job_nothing(person: Person) -> None:
    go = person.site.folder / "go"
    person.script(f"#!/bin/bash\necho line 1\nuntil [ -e {go} ]; do sleep 0.2; done\necho line 2\necho line 3\n")
    job = person.sbatch("train.sh").job
    task = person.task(job)
    pid = inside(person, job)
    wait_until("its first line", lambda: person.site.console(task), contains("line 1"))
    os.kill(pid, signal.SIGKILL)
    go.touch()
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    assert person.site.console(task).splitlines() == ["line 1", "line 2", "line 3"]


def test_a_job_in_which_nothing_of_ours_can_start_is_followed_from_outside(person: Person) -> None:
    slow_script(person).touch()
    job = person.sbatch("train.sh", CLEARML_AGENT__hpc__agent_command='["/nowhere/hpc-agent"]').job
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    assert person.site.console(person.task(job)) == "begun\nend\n"


def test_a_killed_follower_is_replaced_by_the_next_submission_or_by_cron(person: Person) -> None:
    go = slow_script(person)
    first = person.sbatch("train.sh").job
    pid = wait_until("a process to follow it", person.follower)
    wait_until("its task to be started", lambda: person.site.status(person.task(first)), equals(TaskStatus.IN_PROGRESS))
    os.kill(pid, signal.SIGKILL)
    os.kill(inside(person, first), signal.SIGKILL)  # as Slurm does at the end of the script
    go.touch()
    assert person.wait_for_job(first) == "COMPLETED 0:0"
    assert person.site.status(person.task(first)) is TaskStatus.IN_PROGRESS
    wait_until("cron to end it", lambda: person.follow("--once") and not list(person.root.glob("sbatch/*/plan.json")))
    assert person.site.status(person.task(first)) is TaskStatus.COMPLETED
    assert person.site.console(person.task(first)) == "begun\nend\n"
    second = person.sbatch("train.sh").job
    assert wait_until("a process to follow it", person.follower) != pid
    assert person.wait_for_end(second)[0] is TaskStatus.COMPLETED


def test_one_follower_serves_all_jobs_and_leaves_when_nothing_is_left(person: Person) -> None:
    go = slow_script(person)
    jobs = [person.sbatch("train.sh").job for _ in range(3)]
    pid = wait_until("a process to follow them", person.follower)
    go.touch()
    for job in jobs:
        assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
        assert person.follower() in (pid, None)
    wait_until("the follower to leave", person.follower, empty)
    left = {".ended", "agent.conf", "follow.log"}
    wait_until("its lease to go", lambda: {path.name for path in (person.root / "sbatch").iterdir()}, equals(left))


def test_a_job_whose_task_was_aborted_while_no_process_followed_cancels_itself(person: Person) -> None:
    person.script("#!/bin/bash\necho begun\nsleep 300\n")
    job = person.sbatch("--begin=now+1hour", "train.sh").job
    task = person.task(job)
    os.kill(wait_until("a process to follow it", person.follower), signal.SIGKILL)
    person.site.client.session.call("tasks.stop", {"task": task})
    person.site.slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
    assert person.wait_for_job(job) == "CANCELLED 0:0"
    assert person.site.status(task) is TaskStatus.STOPPED


FAKE_SBATCH = """#!/bin/bash
{real} "$@" >/dev/null
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""


def test_a_job_that_sbatch_does_not_name_records_itself(person: Person) -> None:
    fake = person.site.folder / "bin" / "sbatch"
    fake.parent.mkdir()
    fake.write_text(FAKE_SBATCH.format(real=shutil.which("sbatch")))
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    person.script("#!/bin/bash\n#SBATCH -o job.out\necho $SLURM_JOB_ID\nsleep 4\n")
    answer = person.sbatch("train.sh", PATH=f"{fake.parent}:{os.environ['PATH']}")
    assert (answer.returncode, "Socket timed out" in answer.stderr) == (1, True)
    out = person.site.folder / "job.out"
    job = wait_until("the job", lambda: out.exists() and out.read_text().strip())
    person.jobs.append(str(job))
    wait_until("it to be recorded", lambda: list(person.root.glob("sbatch/*/job.json")))
    wait_until("cron to end it", lambda: person.follow("--once") and not list(person.root.glob("sbatch/*/plan.json")))
    assert person.wait_for_end(str(job))[0] is TaskStatus.COMPLETED


def test_a_deleted_task_does_not_end_its_job(person: Person) -> None:
    go = slow_script(person)
    job = person.sbatch("train.sh").job
    task = person.task(job)
    wait_until("its first line", lambda: person.site.console(task), contains("begun"))
    person.site.client.tasks.delete(task)
    go.touch()
    assert untracked(person, job) == "begun\nend\n"


def test_only_what_this_job_wrote_is_its_console(person: Person) -> None:
    (person.site.folder / "all.log").write_text("of last week\n")
    person.script("#!/bin/bash\n#SBATCH -o all.log -e errors.log --open-mode=append\necho out\necho err >&2\nsleep 3\n")
    job = person.sbatch("train.sh").job
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    assert sorted(person.site.console(person.task(job)).splitlines()) == ["err", "out"]
    assert (person.site.folder / "all.log").read_text() == "of last week\nout\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_waiting_sbatch_as_it_would_without_us(person: Person, number: signal.Signals) -> None:
    person.script("#!/bin/bash\nsleep 20\n")
    codes = []
    for argv in (["sbatch"], [sys.executable, "-m", "hpc_agent", "sbatch"]):
        child = subprocess.Popen(
            [*argv, "--wait", "train.sh"],
            env=person.env,
            cwd=person.site.folder,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert child.stdout
        line = child.stdout.readline()
        person.jobs.append(line.split()[-1])
        # As a terminal sends it: to the whole group.
        os.killpg(child.pid, number)
        codes.append(child.wait(HANG_S))
        child.stdout.close()
    assert codes == [-number, -number]
    assert person.state(person.jobs[-1]) == "", "the job itself goes on"
