"""Sites wrap sbatch: they greet with numbers, refuse in words of their own, and know fewer options."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from e2e_site import Site
from sbatch_bench import Person
from waiting import contains, empty, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

HELLO = "print('hello')\n"
NO_HOURS = "ERROR: your project has no hours left; ask the help desk"


def wrapper(folder: Path, body: str) -> str:
    """The PATH on which sbatch is ``body``, where ``$real`` is the real one."""
    path = folder / "bin" / "sbatch"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\nreal={shutil.which('sbatch')}\n{body}\n")
    path.chmod(0o755)
    return f"{path.parent}:{os.environ['PATH']}"


def job_state(person: Person, job: str) -> str:
    return person.site.slurm("squeue", "--noheader", f"--jobs={job}", "--format=%T").strip()


def another_job(person: Person) -> str:
    """A job of the same user that has nothing to do with the task."""
    return person.plain("--parsable", "--hold", "--job-name=innocent", "-o", "/dev/null", "--wrap", "sleep 300").job


GREETINGS = {
    "number": "echo 'your last job:'; echo {last}; exec $real \"$@\"",
    "sentence": "echo 'Submitted batch job {last}'; exec $real \"$@\"",
    "number behind": '$real "$@"; echo {last}',
    "sentence behind": "$real \"$@\"; echo 'Submitted batch job {last}'",
}


@pytest.mark.parametrize("parsable", [(), ("--parsable",), ("--parsable", "--wait"), ("--wait",)], ids=" ".join)
@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS.keys())
def test_an_abort_cancels_the_job_that_was_submitted_and_none_that_a_greeting_names(
    person: Person, greeting: str, parsable: tuple[str, ...]
) -> None:
    last = another_job(person)
    path = wrapper(person.site.folder, greeting.format(last=last))
    begin = ["--begin=now+1hour"] if "--wait" not in parsable else []
    person.script(f"#!/bin/bash\n#SBATCH -J mine\nsleep {1 if '--wait' in parsable else 300}\n")
    answer = person.sbatch(*parsable, *begin, "train.sh", PATH=path)
    numbers = [line.split()[-1] for line in answer.stdout.splitlines() if line.split()[-1].isdigit()]
    [own] = {*numbers} - {last}
    person.jobs.append(own)
    assert last in numbers, "what sbatch prints reaches the person unchanged"
    task = person.task(own)
    if begin:
        person.site.client.session.call("tasks.stop", {"task": task})
        assert person.wait_for_job(own) == "CANCELLED 0:0"
    else:
        assert person.wait_for_end(own)[0] is TaskStatus.COMPLETED
    assert job_state(person, last) == "PENDING"


@pytest.mark.parametrize("words", [(), ("--parsable",)], ids=" ".join)
def test_a_quiet_sbatch_has_not_printed_what_a_greeting_has(person: Person, words: tuple[str, ...]) -> None:
    last = another_job(person)
    path = wrapper(person.site.folder, f"echo {last}; echo 'Submitted batch job {last}'; exec $real \"$@\"")
    person.script("#!/bin/sh\n#SBATCH -J quiet\nsleep 3\n")
    person.sbatch("--quiet", *words, "train.sh", PATH=path)
    [found] = person.tasks()
    assert found["runtime"]["_slurm_job_id"] != last
    assert person.site.wait_for_end(TaskId(found["id"])) is TaskStatus.COMPLETED


def test_a_job_that_was_never_seen_under_its_name_is_not_cancelled_and_the_task_says_so(person: Person) -> None:
    last = another_job(person)
    path = wrapper(person.site.folder, f"echo 'Submitted batch job {last}'")
    person.script("#!/bin/bash\nsleep 300\n")
    person.sbatch("train.sh", PATH=path)
    task = person.task(last)
    person.site.client.session.call("tasks.stop", {"task": task})
    wait_until("the reason", lambda: person.site.message(task), contains(f"Slurm job {last} was not cancelled"))
    assert "'train.sh'" in person.site.message(task)
    assert job_state(person, last) == "PENDING"


@pytest.mark.parametrize("name", ["renamed", "clearml_task"])
def test_a_job_that_its_owner_renamed_is_cancelled_with_its_task(person: Person, name: str) -> None:
    person.script("#!/bin/bash\nsleep 300\n")
    job = person.sbatch("--begin=now+1hour", "train.sh").job
    task = person.task(job)
    wait_until(
        "it to be known",
        lambda: (person.folder(job) / "job.json").read_text().replace(" ", ""),
        contains('"known":true'),
    )
    person.site.slurm("scontrol", "update", f"JobId={job}", f"JobName={name}")
    person.site.client.session.call("tasks.stop", {"task": task})
    assert person.wait_for_job(job) == "CANCELLED 0:0"


@pytest.mark.parametrize("words", [(), ("--parsable",), ("--wait",)], ids=" ".join)
def test_a_refusal_in_unknown_words_ends_the_task_with_them(person: Person, words: tuple[str, ...]) -> None:
    path = wrapper(person.site.folder, f"echo 4711; echo '{NO_HOURS}' >&2; exit 1")
    # A name of its own: with a job of that name that ended a moment ago it would not be certain that there is none.
    person.script(f"#!/bin/bash\n#SBATCH -J no-hours-{len(words)}{''.join(words)}\necho hi\n")
    answer = person.sbatch(*words, "train.sh", PATH=path)
    assert (answer.returncode, answer.stdout) == (1, "4711\n")
    [found] = person.tasks()
    task = TaskId(found["id"])
    assert found["status"] == "queued"
    assert NO_HOURS in person.site.message(task)
    assert person.site.wait_for_end(task) is TaskStatus.FAILED
    assert NO_HOURS in person.site.reason(task)
    wait_until("nothing to follow", lambda: (person.root / "sbatch" / task).exists(), empty)
    assert person.site.client.queues.queue_of(task) is None


def test_a_job_of_an_error_in_unknown_words_is_found(person: Person) -> None:
    path = wrapper(person.site.folder, '$real "$@" > /dev/null; echo "site script: KeyError" >&2; exit 1')
    person.script("#!/bin/sh\n#SBATCH -J found\nsleep 3\n")
    assert person.sbatch("train.sh", PATH=path).returncode == 1
    [found] = person.tasks()
    assert person.site.wait_for_end(TaskId(found["id"])) is TaskStatus.COMPLETED


@pytest.mark.parametrize("script", ["#!/bin/bash\necho \0hi\n", "#!/bin/bash\n#SBATCH --comment=it's\ntrue\n"])
def test_a_script_that_slurm_does_not_take_leaves_no_task(person: Person, script: str) -> None:
    person.script(script)
    assert person.sbatch("train.sh").returncode != 0
    assert person.tasks() == []


def test_a_task_refused_in_unknown_words_fails_with_them_and_holds_up_no_other(site: Site) -> None:
    bad = [site.bare_task(HELLO) for _ in range(3)]
    good = [site.bare_task(HELLO) for _ in range(2)]
    refuses = f"case \"$*\" in *{'*|*'.join(bad)}*) echo '{NO_HOURS}' >&2; exit 1;; esac"
    path = wrapper(site.folder, f'echo "$*" >> {site.folder}/calls\n{refuses}\nexec $real "$@"')
    assert site.agent("daemon", "--queue", site.queue, "--once", PATH=path).returncode == 0
    calls = (site.folder / "calls").read_text()
    assert all(task in calls for task in (*bad, *good)), "one pass submits all, whatever becomes of the first"
    for task in bad:
        assert site.status(task) is TaskStatus.QUEUED
        assert f"sbatch failed: {NO_HOURS}" in site.message(task)
    site.daemon(PATH=path)
    for task in good:
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
    for task in bad:
        assert site.wait_for_end(task) is TaskStatus.FAILED
        assert f"the scheduler refused the job: {NO_HOURS}" in site.reason(task)
        assert NO_HOURS in site.console(task)


def test_a_staging_job_that_is_refused_in_unknown_words_fails_its_task_with_them(site: Site) -> None:
    site.conf.write_text(f'{site.conf.read_text()}\nhpc {{ root: "{site.folder}/state", envs.build_on: "job" }}\n')
    refuses = f'case "$*" in *clearml_stage_*) echo "{NO_HOURS}" >&2; exit 1;; esac'
    site.daemon(PATH=wrapper(site.folder, f'{refuses}\nexec $real "$@"'))
    task = site.bare_task(HELLO)
    wait_until("sbatch's words", lambda: site.message(task), contains(NO_HOURS))
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert f"the scheduler refused the staging job: {NO_HOURS}" in site.reason(task)


def test_a_wrapper_that_greets_and_knows_no_parsable_serves_a_queue(site: Site) -> None:
    refuses = 'case "$*" in *--parsable*) echo "error: parsable is not allowed" >&2; exit 1;; esac'
    site.daemon(PATH=wrapper(site.folder, f'{refuses}\necho 4711; $real "$@"; echo 12'))
    for task in [site.bare_task(HELLO) for _ in range(2)]:
        assert site.wait_for_end(task) is TaskStatus.COMPLETED


def test_a_number_that_a_wrapper_prints_in_place_of_the_answer_cancels_no_other_job(site: Site, person: Person) -> None:
    last = another_job(person)
    site.daemon(PATH=wrapper(site.folder, f'"$real" "$@" > /dev/null; echo {last}'))
    task = site.bare_task("import time\nprint('begun', flush=True)\ntime.sleep(300)\n")
    wait_until("its first line", lambda: site.console(task), contains("begun"))
    site.client.session.call("tasks.stop", {"task": task})
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert job_state(person, last) == "PENDING"


RENAMES = """
import os, subprocess, time
job = os.environ["SLURM_JOB_ID"]
subprocess.run(["scontrol", "update", f"JobId={job}", "JobName=another"], check=True)
print("begun", flush=True)
time.sleep(SECONDS)
print("over", flush=True)
"""


def test_a_task_that_renames_its_job_is_not_lost(site: Site) -> None:
    site.conf.write_text(f'{site.conf.read_text()}\nhpc {{ root: "{site.folder}/state", lost_after: 5 }}\n')
    site.daemon()
    task = site.bare_task(RENAMES.replace("SECONDS", "20"))
    assert site.wait_for_end(task) is TaskStatus.COMPLETED, site.reason(task)
    assert "over" in site.lines(task)
