"""What becomes of a script submitted with hpc-agent sbatch: its task, from waiting to its end and to its clone."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from sbatch_bench import FINAL, Person
from waiting import contains, empty, equals, wait_until

from hpc_agent.domain.status import TaskStatus
from hpc_agent.tracking.tracked_submission import WAITING

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

SLEEP = "#!/bin/bash\necho begun\nsleep 300\n"
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b")


def repository(person: Person) -> Path:
    """A repository with a remote, and in it a folder with a job script that runs its library."""
    folder = person.site.folder / "code"
    (folder / "jobs").mkdir(parents=True)
    (folder / "lib.sh").write_text("word=committed\n")
    person.script("#!/bin/bash\n. ./lib.sh\necho word $word\n", "run.sh", folder / "jobs")
    remote = person.site.folder / "remote.git"
    for argv in (
        ("git", "init", "-q", "-b", "main", "."),
        (*GIT, "add", "."),
        (*GIT, "commit", "-q", "-m", "first"),
        ("git", "clone", "-q", "--bare", ".", str(remote)),
        ("git", "remote", "add", "origin", f"file://{remote}"),
        ("git", "fetch", "-q", "origin"),
        ("git", "branch", "-q", "-u", "origin/main"),
    ):
        subprocess.run(argv, cwd=folder, check=True)
    return folder


def test_a_script_is_a_task_with_console_usage_and_final_status(person: Person) -> None:
    go = person.site.folder / "go"
    waits = f"until [ -e {go} ]; do sleep 0.2; done"
    person.script(f"#!/bin/bash\n#SBATCH -J lesson --mem=1G -c 2\necho begun\necho oops >&2\n{waits}\necho end\n")
    job = person.sbatch("--clearml-tags=a,b", "--clearml-project", "sbatch/e2e", "train.sh", "--lr", "0.1").job
    task = person.task(job)
    wait_until("its console while it runs", lambda: person.site.console(task), contains("begun\noops\n"))
    assert person.site.status(task) is TaskStatus.IN_PROGRESS
    wait_until("its worker", lambda: workers_of(person, job), equals([task]))
    go.touch()
    assert person.wait_for_end(job) == (TaskStatus.COMPLETED, wait_until("its record", lambda: ended(person, job)))
    assert person.site.console(task) == "begun\noops\nend\n"
    assert (person.site.folder / f"slurm-{job}.out").read_text() == "begun\noops\nend\n"
    raw = person.raw(task)
    assert (raw["name"], raw["type"], sorted(raw["tags"])) == ("lesson", "training", ["a", "b"])
    assert properties(raw) == {"num_cpus": "2", "memory_gb": "1", "slurm_job_id": job}
    assert raw["script"]["binary"] == "/bin/bash"
    assert raw["script"]["entry_point"].endswith("train.sh --lr 0.1")
    wait_until("its worker to go", lambda: workers_of(person, job), empty)


def workers_of(person: Person, job: str) -> list[str]:
    """The task of each worker of a job."""
    return [w["task"]["id"] for w in person.site.client.workers.all() if w["id"].endswith(f":slurm:{job}")]


def ended(person: Person, job: str) -> str:
    """Empty until accounting has its end."""
    rows = person.site.slurm("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,Elapsed,NodeList").splitlines()
    if len(rows) != 1 or not rows[0].startswith(FINAL):
        return ""
    state, elapsed, nodes = rows[0].split("|")
    return f"Slurm job {job} {state} after {elapsed} on {nodes}"


def properties(raw: dict[str, object]) -> dict[str, str]:
    parameters = raw["hyperparams"]
    assert isinstance(parameters, dict)
    return {name: item["value"] for name, item in parameters["properties"].items()}


@pytest.mark.parametrize(
    ("last", "status", "reason"),
    [
        ("exit 7", TaskStatus.FAILED, "exit code 7"),
        ("kill -9 $$", TaskStatus.FAILED, "ended by signal 9"),
        ("scancel $SLURM_JOB_ID; sleep 60", TaskStatus.STOPPED, "was cancelled by"),
        ("python3 -c 'import nothing_there'", TaskStatus.FAILED, "exit code 1: the Python module nothing_there is not"),
    ],
)
def test_the_final_status_and_its_reason_come_from_slurm(
    person: Person, last: str, status: TaskStatus, reason: str
) -> None:
    person.script(f"#!/bin/bash\necho begun\n{last}\n")
    seen, words = person.wait_for_end(person.sbatch("train.sh").job)
    assert (seen, reason in words) == (status, True), words


def test_a_script_that_bash_does_not_run_is_followed_from_outside(person: Person) -> None:
    go = person.site.folder / "go"
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.2)"
    person.script(f"#!/usr/bin/env python3\nprint('begun', flush=True)\n{waits}\nprint('end')\n", "train.py")
    job = person.sbatch("train.py").job
    task = person.task(job)
    wait_until("its console while it runs", lambda: person.site.console(task), equals("begun\n"))
    assert person.site.status(task) is TaskStatus.IN_PROGRESS
    go.touch()
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    assert person.site.console(task) == "begun\nend\n"


def test_while_its_job_waits_a_task_waits_and_says_why(person: Person) -> None:
    person.script(SLEEP)
    job = person.sbatch("--begin=now+1hour", "train.sh").job
    task = person.task(job)
    wait_until("the reason", lambda: person.site.message(task).startswith(f"Slurm job {job} is waiting (BeginTime)"))
    assert person.site.status(task) is TaskStatus.QUEUED
    holder = person.site.client.queues.queue_of(task)
    assert holder is not None and holder.name == WAITING


@pytest.mark.parametrize("how", ["tasks.stop", "tasks.dequeue"])
def test_aborting_a_waiting_task_cancels_its_job(person: Person, how: str) -> None:
    person.script(SLEEP)
    job = person.sbatch("--begin=now+1hour", "train.sh").job
    task = person.task(job)
    person.site.client.session.call(how, {"task": task})
    assert person.wait_for_job(job) == "CANCELLED 0:0"
    wait_until("nothing to follow", lambda: (person.root / "sbatch" / task).exists(), empty)


def test_aborting_a_running_task_cancels_its_job(person: Person) -> None:
    # Slurm signals the sleep too: a shell whose wait returns for that must not be at its end.
    person.script("#!/bin/bash\ntrap 'echo saved; exit' TERM\necho begun\nwhile :; do sleep 300 & wait; done\n")
    job = person.sbatch("train.sh").job
    task = person.task(job)
    wait_until("its first line", lambda: person.site.console(task), contains("begun"))
    person.site.client.session.call("tasks.stop", {"task": task})
    status, reason = person.wait_for_end(job)
    assert status is TaskStatus.STOPPED
    assert reason.startswith(f"aborted by its user; Slurm job {job} was cancelled by")
    assert "saved" in person.site.console(task)


def test_task_init_in_the_script_reports_into_the_same_task(person: Person) -> None:
    (person.site.folder / "train.py").write_text(
        "import argparse\nfrom clearml import Task\n"
        "task = Task.init(project_name='other', task_name='other')\nlogger = task.get_logger()\n"
        "parser = argparse.ArgumentParser()\nparser.add_argument('--lr', default='0.5')\nparser.parse_args()\n"
        "print('the task is', task.id)\nlogger.report_scalar('loss', 'train', 0.25, 1)\n"
    )
    python = f"{person.site.peers}/python train.py --lr 0.1"
    person.script(f"#!/bin/bash\n{python}\n{python} | tee log.txt\n")
    job = person.sbatch("train.sh").job
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    task = person.task(job)
    seen = person.site.read_back(task)
    assert seen["console"].count(f"the task is {task}\n") == 2
    assert seen["scalars"]["loss"]["train"]["y"] == [0.25, 0.25], "the second goes on behind the first"
    assert seen["arguments"]["Args/lr"] == "0.1"


def test_a_quiet_submission_is_tracked(person: Person) -> None:
    answer = person.sbatch("-Q", "-o", "out.txt", "--wrap", "echo hello")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    [task] = wait_until("its end", lambda: [task for task in person.tasks() if task["status"] == "completed"])
    assert task["name"] == "wrap"
    assert person.site.console(task["id"]) == "hello\n"


def test_a_repository_is_recorded_and_a_clone_runs_its_uncommitted_state(person: Person) -> None:
    folder = repository(person)
    (folder / "lib.sh").write_text("word=changed\n")
    person.script('#!/bin/bash\ncd "$SLURM_SUBMIT_DIR"\n. ./lib.sh\necho new $word "$@"\n', "new.sh", folder / "jobs")
    job = person.sbatch("--gres=gpu:2", "-t", "3", "-p", "main", "jobs/new.sh", "a b", cwd=folder).job
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    task = person.task(job)
    assert person.site.console(task) == "new changed a b\n"
    script = person.raw(task)["script"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert script["repository"] == f"file://{person.site.folder}/remote.git"
    assert (script["branch"], script["version_num"], script["working_dir"]) == ("main", head.strip(), ".")
    assert "+word=changed" in script["diff"] and "b/jobs/new.sh" in script["diff"]
    clone = person.site.client.tasks.clone(task, "again")
    for name in ("jobs/new.sh", "lib.sh"):
        (folder / name).unlink()
    person.site.client.tasks.enqueue(clone, person.site.queue_id)
    person.site.daemon()
    assert person.site.wait_for_end(clone) is TaskStatus.COMPLETED
    assert "new changed a b\n" in person.site.console(clone)
    job = str(person.raw(clone)["runtime"]["_slurm_job_id"])
    asked_for = person.site.slurm("scontrol", "show", "job", job)
    assert re.search(r"TresPerNode=(gres[:/])?gpu:2\n", asked_for)  # three spellings on four versions
    assert "TimeLimit=00:03:00 TimeMin=N/A\n" in asked_for
    assert "Partition=main " in asked_for


def test_a_clone_of_a_script_without_repository_runs_in_the_same_folder(person: Person) -> None:
    (person.site.folder / "data.txt").write_text("seven\n")
    person.script('#!/bin/bash\ncat data.txt; cat "$SLURM_SUBMIT_DIR/data.txt"; echo "<$1>"\n')
    job = person.sbatch("train.sh", "a  b").job
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    clone = person.site.client.tasks.clone(person.task(job), "again")
    (person.site.folder / "train.sh").unlink()
    person.site.client.tasks.enqueue(clone, person.site.queue_id)
    person.site.daemon()
    assert person.site.wait_for_end(clone) is TaskStatus.COMPLETED
    assert "seven\nseven\n<a  b>\n" in person.site.console(clone)


def test_each_element_of_an_array_has_a_task_of_its_own(person: Person) -> None:
    person.script('#!/bin/bash\n#SBATCH --array=1-3\necho "element $SLURM_ARRAY_TASK_ID of $CLEARML_TASK_ID $1"\n'
                  'exit $(( SLURM_ARRAY_TASK_ID == 2 ))\n')  # fmt: skip
    job = person.sbatch("train.sh", "x").job
    status, reason = person.wait_for_end(job)
    assert (status, reason) == (TaskStatus.FAILED, f"Slurm array {job}: 2 COMPLETED, 1 FAILED ({job}_2)")
    array = person.task(job)
    for index in (1, 2, 3):
        task = person.task(f"{job}_{index}")
        expected = TaskStatus.FAILED if index == 2 else TaskStatus.COMPLETED
        assert person.wait_for_end(f"{job}_{index}")[0] is expected
        assert person.site.console(task) == f"element {index} of {task} x\n"
        raw = person.raw(task)
        assert (raw["name"], raw["parent"]) == (f"train.sh [{index}]", array)
    clone = person.site.client.tasks.clone(person.task(f"{job}_3"), "third again")
    person.site.client.tasks.enqueue(clone, person.site.queue_id)
    person.site.daemon()
    assert person.site.wait_for_end(clone) is TaskStatus.COMPLETED
    assert f"element 3 of {clone} x\n" in person.site.console(clone)


def test_an_array_is_aborted_as_a_whole_and_by_element(person: Person) -> None:
    person.script("#!/bin/bash\necho begun\nsleep 300\n")
    job = person.sbatch("--array=1-3%2", "train.sh").job
    first, second = person.task(f"{job}_1"), person.task(f"{job}_2")
    for task in (first, second):
        wait_until("its first line", partial(person.site.console, task), contains("begun"))
    person.site.client.session.call("tasks.stop", {"task": first})
    assert person.wait_for_end(f"{job}_1")[0] is TaskStatus.STOPPED
    assert person.site.status(second) is TaskStatus.IN_PROGRESS
    person.site.client.session.call("tasks.stop", {"task": person.task(job)})
    assert person.wait_for_end(f"{job}_2")[0] is TaskStatus.STOPPED
    array = person.task(job)
    reason = f"aborted by its user; Slurm array {job}: 3 CANCELLED"
    wait_until("the array's reason", lambda: person.site.reason(array).startswith(reason))
    assert person.site.status(array) is TaskStatus.STOPPED


def test_a_requeued_job_goes_on_as_the_same_task(person: Person) -> None:
    person.script('#!/bin/bash\necho run $SLURM_RESTART_COUNT\n[ -n "$SLURM_RESTART_COUNT" ] || sleep 300\nsleep 3\n')
    job = person.sbatch("train.sh").job
    task = person.task(job)
    wait_until("its first run", lambda: person.site.console(task), contains("run"))
    person.site.slurm("scontrol", "requeue", job)
    wait_until("it to wait again", lambda: person.site.message(task), contains("is waiting again"))
    assert person.wait_for_end(job)[0] is TaskStatus.COMPLETED
    assert "run 1\n" in person.site.console(task)


def test_a_job_submitted_from_a_job_is_a_task_of_its_own(person: Person) -> None:
    person.script("#!/bin/bash\necho second $CLEARML_TASK_ID\n", "second.sh")
    person.script(f"#!/bin/bash\n{sys.executable} -m hpc_agent sbatch --parsable second.sh\n")
    first = person.sbatch("train.sh").job
    assert person.wait_for_end(first)[0] is TaskStatus.COMPLETED
    second = person.site.console(person.task(first)).strip()
    person.jobs.append(second)
    assert person.wait_for_end(second)[0] is TaskStatus.COMPLETED
    assert person.site.console(person.task(second)) == f"second {person.task(second)}\n"


def test_signals_and_the_time_limit_reach_the_script_as_without_us(person: Person) -> None:
    text = (
        '#!/bin/bash\n#SBATCH --time=1 --signal=B:USR1@55\nfor s in USR1 USR2 HUP; do trap "echo $s" $s; done\n'
        "trap 'echo TERM' TERM\necho begun\nwhile :; do sleep 1 & wait $!; done\n"
    )
    person.script(text)
    jobs = [person.plain("train.sh").job, person.sbatch("train.sh").job]
    for job in jobs:
        wait_until("its first signal", partial(output, person, job), contains("USR1"))
        person.site.slurm("scancel", "--batch", "--signal=USR2", job)
        wait_until("its second signal", partial(output, person, job), contains("USR2"))
        person.site.slurm("scancel", "--full", "--signal=HUP", job)
    states = [person.wait_for_job(job) for job in jobs]
    assert states == ["TIMEOUT 0:0", "TIMEOUT 0:0"]
    for job in jobs:
        # Accounting shows the time limit as soon as it is met, KillWait before the script is over.
        gone = partial(person.site.slurm, "squeue", "--noheader", "--jobs", job)
        wait_until(f"job {job}'s processes to be gone", gone, lambda seen: not seen.strip())
    # Slurm's own lines, without the program's name from 26.05 on; and bash's, where SIGKILL met its child before it.
    slurms = re.compile(r"slurmstepd|error: \*\*\* JOB \d+ ON|: line \d+: +\d+ Killed ")
    plain, ours = ([line for line in output(person, job).splitlines() if not slurms.search(line)] for job in jobs)
    assert ours == plain == ["begun", "USR1", "USR2", "HUP", "TERM"]
    status, reason = person.wait_for_end(jobs[1])
    assert status is TaskStatus.FAILED and "reached after" in reason
    assert "ask for more with --time" in reason


def output(person: Person, job: str) -> str:
    path = person.site.folder / f"slurm-{job}.out"
    return path.read_text() if path.exists() else ""
