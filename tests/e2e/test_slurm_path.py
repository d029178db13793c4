"""The main job: a task that the real clearml-task enqueues runs as a real Slurm job, and its log comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest
from e2e_site import TRAIN, Site
from waiting import contains, empty, equals, wait_until

from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.status import TaskStatus
from hpc_agent.runs.attempt_records import ClaimRecord
from hpc_agent.runs.directory import RunsFolder

WAITS = {"CLEARML_AGENT__hpc__slurm__sbatch_args": '["--begin=now+1hour"]'}
"""A daemon whose jobs wait."""

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(300)\n"


def test_a_script_trains_on_two_gpus_and_is_read_back_by_the_sdk(site: Site) -> None:
    task = site.script_task(TRAIN, "--args", "steps=3")
    site.properties(task, num_gpus="2")
    site.daemon()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    seen = site.read_back(task)
    assert seen["status"] == "completed"
    assert seen["arguments"]["Args/steps"] == "3"
    assert seen["scalars"]["loss"]["train"]["y"] == pytest.approx([1, 1 / 2, 1 / 3])
    lines = [line for line in seen["console"].splitlines() if line.startswith(("gpus", "step"))]
    [gpus, *steps] = lines
    assert len(gpus.split()[1].split(",")) == 2
    assert steps == ["step 0", "step 1", "step 2"]


def test_a_repository_runs_with_its_uncommitted_changes(site: Site) -> None:
    repository = site.folder / "repo"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(repository)]
    repository.mkdir()
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    (repository / "lib.py").write_text("WORD = 'committed'\n")
    (repository / "train.py").write_text("import lib\nprint('word:', lib.WORD)\n")
    (repository / "requirements.txt").write_text("clearml\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    remote = site.folder / "remote.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(repository), str(remote)], check=True)
    subprocess.run([*git, "remote", "add", "origin", f"file://{remote}"], check=True)
    subprocess.run([*git, "push", "-q", "-u", "origin", "main"], check=True)
    (repository / "lib.py").write_text("WORD = 'uncommitted'\n")
    task = site.clearml_task("--name", "repo", "--script", "train.py", cwd=repository)
    site.daemon()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "word: uncommitted" in site.console(task)


def test_a_failing_script_fails_with_its_exit_code(site: Site) -> None:
    task = site.script_task(TRAIN, "--args", "exit_code=7")
    site.daemon()
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "exit code 7" in site.reason(task)


def test_an_abort_ends_a_running_job(site: Site) -> None:
    task = site.bare_task(SLEEP)
    site.daemon()
    wait_until("its first line", lambda: site.console(task), contains("begun"))
    site.client.session.call("tasks.stop", {"task": task})
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    wait_until("its job to leave", lambda: site.jobs(task), empty)


def test_an_abort_cancels_a_waiting_job(site: Site) -> None:
    task = site.bare_task(SLEEP)
    site.daemon(**WAITS)
    [job] = wait_until("its job", lambda: site.jobs(task))
    wait_until("the reason in its message", lambda: site.message(task), contains(f"{job} is waiting (BeginTime)"))
    site.client.session.call("tasks.stop", {"task": task})
    wait_until("its job to be cancelled", lambda: site.jobs(task), empty)
    assert site.status(task) is TaskStatus.STOPPED


def test_a_task_taken_off_the_queue_has_its_job_cancelled(site: Site) -> None:
    task = site.bare_task(SLEEP)
    site.daemon(**WAITS)
    wait_until("its job", lambda: site.jobs(task))
    site.client.tasks.dequeue(task)
    wait_until("its job to be cancelled", lambda: site.jobs(task), empty)
    assert site.status(task) is TaskStatus.CREATED


def test_of_two_jobs_that_race_one_runs_and_the_other_fails_with_the_reason(site: Site) -> None:
    task = site.bare_task("import time\nprint('ran', flush=True)\ntime.sleep(3)\n")
    script = site.folder / "race.sh"
    script.write_text(f"#!/bin/bash\nexec {sys.executable} -m hpc_agent execute --id {task} --require-queue\n")
    jobs = [site.slurm("sbatch", "--parsable", "-o", str(site.folder / "%j.out"), str(script)).strip() for _ in "ab"]
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    wait_until("both jobs to end", lambda: all(_ended(site, job) for job in jobs))
    assert sorted(_ended(site, job) for job in jobs) == ["COMPLETED|0:0", "FAILED|66:0"]
    assert site.console(task).splitlines().count("ran") == 1
    texts = [(site.folder / f"{job}.out").read_text() for job in jobs]
    assert sum(f"error: task {task} was not run: " in text for text in texts) == 1


def test_a_dead_daemon_loses_nothing_and_the_next_one_goes_on(site: Site) -> None:
    task = site.bare_task("import time\nprint('begun', flush=True)\ntime.sleep(4)\nprint('end')\n")
    daemon = site.daemon()
    wait_until("its first line", lambda: site.console(task), contains("begun"))
    daemon.kill()
    daemon.wait()
    later = site.bare_task("print('later')\n")
    site.daemon()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert site.wait_for_end(later) is TaskStatus.COMPLETED
    assert site.console(task).splitlines().count("end") == 1


def test_sigterm_ends_the_daemon_and_jobs_go_on(site: Site) -> None:
    task = site.bare_task("import time\nprint('begun', flush=True)\ntime.sleep(3)\nprint('end')\n")
    daemon = site.daemon()
    wait_until("its first line", lambda: site.console(task), contains("begun"))
    daemon.terminate()
    assert daemon.wait(30) == 0
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "end" in site.console(task)


def test_once_submits_and_leaves(site: Site) -> None:
    task = site.bare_task("print('hello')\n")
    done = site.agent("daemon", "--queue", site.queue, "--once")
    assert done.returncode == 0, done.stderr
    assert site.wait_for_end(task) is TaskStatus.COMPLETED


def test_scancel_by_hand_is_reported_to_the_user(site: Site) -> None:
    task = site.bare_task(SLEEP)
    site.daemon()
    wait_until("its first line", lambda: site.console(task), contains("begun"))
    [job] = site.jobs(task)
    site.slurm("scancel", job)
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert f"job {job} was cancelled by" in site.reason(task)


def test_a_job_that_loses_its_agent_is_settled_from_accounting(site: Site) -> None:
    task = site.bare_task(
        "import os, signal, time\nprint('begun', flush=True)\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)\n"
    )
    site.daemon()
    assert site.wait_for_end(task) is TaskStatus.FAILED
    assert "left no report" in site.reason(task)
    assert "begun" in site.console(task)


def _names(site: Site, start: str) -> list[str]:
    names = site.slurm("sacct", "-X", "-n", "-P", "-o", "JobName").split()
    return [name for name in names if name.startswith(start)]


def _ended(site: Site, job: str) -> str:
    rows = site.slurm("sacct", "-X", "-n", "-P", "-j", job, "-o", "State,ExitCode").split()
    return rows[0] if rows and rows[0].split("|")[0] not in ("PENDING", "RUNNING") else ""


def test_a_clone_gets_the_packages_that_were_installed_and_the_wish_is_kept(site: Site) -> None:
    task = site.bare_task("import idna\nprint('idna', idna.__version__)\n", requirements={"pip": "idna>=3"})
    site.daemon()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    version = site.console(task).split("idna ")[1].split()[0]
    requirements = site.client.tasks.get(task).script.requirements
    assert requirements.pip == (f"idna=={version}",)
    assert requirements.org_pip == ("idna>=3",)
    clone = site.client.tasks.clone(task, "again")
    site.client.tasks.enqueue(clone, site.queue_id)
    assert site.wait_for_end(clone) is TaskStatus.COMPLETED
    assert site.client.tasks.get(clone).script.requirements == requirements


def test_a_small_job_stages_where_login_nodes_are_not_for_builds(site: Site) -> None:
    task = site.bare_task("import certifi\nprint('staged in a job')\n", requirements={"pip": "certifi"})
    broken = site.bare_task("", requirements={"pip": "no-such-package-of-ours"})
    site.daemon(CLEARML_AGENT__hpc__envs__build_on="job")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert site.wait_for_end(broken) is TaskStatus.FAILED
    assert "no-such-package-of-ours" in site.reason(broken)
    wait_until("accounting to know the staging job", lambda: len(_names(site, f"clearml_stage_{task}_")), equals(1))
    assert _names(site, f"clearml_task_{broken}_") == []
    # What is built there may be a stranger's code: it gets the task's own keys, not the daemon's.
    [script] = (site.root / "runs" / task).glob("*/stage.sbatch")
    assert f"export CLEARML_CONFIG_FILE={script.parent}/owner.conf\n" in script.read_text()
    own = json.loads((script.parent / "owner.conf").read_text())["api"]["credentials"]["access_key"]
    assert own not in site.conf.read_text()


def test_jobs_stage_for_themselves_where_compute_nodes_have_a_network(site: Site) -> None:
    task = site.bare_task("import certifi\nprint('built here')\n", requirements={"pip": "certifi"})
    site.daemon(CLEARML_AGENT__hpc__envs__build_on="compute")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "built here" in site.console(task)


def test_a_reader_that_leaves_costs_no_final_status(site: Site) -> None:
    task = site.bare_task("for number in range(2000):\n    print('line', number, flush=True)\n")
    shell = f"{sys.executable} -m hpc_agent execute --id {task} --require-queue | head -n 2"
    subprocess.run(["bash", "-c", shell], env=site.env, cwd=site.folder, check=True, capture_output=True, timeout=100)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert "line 1999" in site.console(task)


def test_a_person_may_run_a_task_again_in_the_same_allocation(site: Site) -> None:
    task = site.bare_task("print('again')\n", enqueue=False)
    for _ in range(2):
        done = site.agent("execute", "--id", task, SLURM_JOB_ID="77")
        assert done.returncode == 0, done.stderr
        assert site.status(task) is TaskStatus.COMPLETED
        assert "again" in done.stdout
        site.client.session.call("tasks.reset", {"task": task})


@pytest.mark.parametrize("entry", ["x" * 300 + ".py", "a\0b.py"])
def test_whatever_goes_wrong_the_task_gets_a_final_status(site: Site, entry: str) -> None:
    task = site.bare_task("print('never')\n", entry_point=entry)
    done = site.agent("execute", "--id", task, "--require-queue")
    assert done.returncode == 1
    assert site.status(task) is TaskStatus.FAILED
    assert site.reason(task)


def test_two_daemons_on_one_queue_submit_each_task_once(site: Site) -> None:
    tasks = [site.bare_task("print('once')\n") for _ in range(4)]
    daemons = [site.daemon(), site.daemon()]
    for task in tasks:
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
    for task in tasks:
        wait_until("accounting to know its job", partial(_names, site, f"clearml_task_{task}_"))
        assert len(_names(site, f"clearml_task_{task}_")) == 1
    assert [daemon.poll() for daemon in daemons] == [None, None]


def test_a_refusal_that_dies_in_the_middle_is_repaired(site: Site) -> None:
    """As if the daemon had died between taking the task off its queue and failing it."""
    task = site.bare_task("print('after all')\n", enqueue=True)
    [queue] = site.client.queues.get_many([site.queue_id])
    attempt = attempt_for("hpcagent", queue.id, task, queue.entries[0].added)
    run = RunsFolder(site.root / "runs").of(attempt).create()
    long_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    run.first_claim(ClaimRecord(state="intent", at=long_ago, owner="daemon:login1:1", queue=queue.id))
    assert site.client.queues.remove_task(queue.id, task)
    site.daemon()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED


def test_sigterm_ends_a_daemon_that_builds(site: Site) -> None:
    package = site.folder / "slow"
    package.mkdir()
    (package / "setup.py").write_text("import time, setuptools\ntime.sleep(120)\nsetuptools.setup(name='slow')\n")
    site.bare_task("", requirements={"pip": f"slow @ file://{package}"})
    daemon = site.daemon()
    log = site.folder / "daemon.log"
    wait_until("the build", log.read_text, contains("step="))
    daemon.terminate()
    assert daemon.wait(30) == 0


def test_cron_settles_what_a_daemon_would(site: Site) -> None:
    task = site.bare_task(SLEEP)
    cron = ["daemon", "--queue", site.queue, "--once"]
    assert site.agent(*cron).returncode == 0
    wait_until("its first line", lambda: site.console(task), contains("begun"))
    [job] = site.jobs(task)
    site.slurm("scancel", job)
    wait_until("its job to leave", lambda: site.jobs(task), empty)

    def settled() -> bool:
        assert site.agent(*cron).returncode == 0
        return site.status(task) is TaskStatus.STOPPED

    wait_until("a pass to settle it", settled)
    assert f"job {job} was cancelled by" in site.reason(task)
