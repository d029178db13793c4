"""What each flag of ``execute`` does, on a machine of its own."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site
from http_git import serve_git

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

SEEN = """
import os, sys
for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CLEARML_LOG_LEVEL", "CLEARML_WORKER_ID"):
    print(name, os.environ.get(name))
print("debug", __debug__, "docs", (lambda: 1).__doc__)
print("on stderr", file=sys.stderr)
"""


def execute(site: Site, task: TaskId, *flags: str, code: int = 0, **env: Any) -> subprocess.CompletedProcess[str]:
    done = site.agent("execute", "--id", task, *flags, **env)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def draft(site: Site, text: str = SEEN, **script: object) -> TaskId:
    return site.bare_task(text, enqueue=False, **script)


def test_by_name_and_with_the_tasks_exit_code(machine: Site) -> None:
    task, name = draft(machine, "raise SystemExit(7)"), f"named {uuid.uuid4().hex}"
    machine.client.tasks.edit(task, {"name": name})
    execute(machine, TaskId(name), code=7)
    assert machine.status(task) is TaskStatus.FAILED
    assert "no task has the id or name" in execute(machine, TaskId("nothing of this name"), code=2).stderr


def test_two_tasks_of_a_name_are_distinguished_by_id(machine: Site) -> None:
    name = f"twice {uuid.uuid4().hex}"
    for task in (draft(machine), draft(machine)):
        machine.client.tasks.edit(task, {"name": name})
    assert f'2 tasks are named "{name}"' in execute(machine, TaskId(name), code=2).stderr


def test_the_log_file_is_kept_and_added_to(machine: Site) -> None:
    log = machine.folder / "kept.log"
    log.write_text("before\n")
    execute(machine, draft(machine), "--log-file", str(log))
    text = log.read_text()
    assert text.startswith("before\n")
    assert "debug True" in text and "on stderr" in text and "Process completed successfully" in text


def test_a_log_file_that_cannot_be_written_is_named_before_anything_runs(machine: Site) -> None:
    task = draft(machine)
    assert "cannot be written" in execute(machine, task, "--log-file", "/nowhere/log", code=2).stderr
    assert machine.status(task) is TaskStatus.CREATED


def test_without_monitoring_the_console_stays_here(machine: Site) -> None:
    task = draft(machine)
    assert "debug True" in execute(machine, task, "--disable-monitoring").stdout
    assert machine.console(task) == ""
    assert machine.status(task) is TaskStatus.COMPLETED


def test_full_monitoring_sends_the_set_up_too(machine: Site) -> None:
    task = draft(machine, requirements={"pip": "six==1.16.0"})
    execute(machine, task, "--full-monitoring")
    console = machine.console(task)
    assert console.index("Environment ") < console.index("debug True")


def test_require_queue_runs_what_is_queued_and_leaves_the_rest(machine: Site) -> None:
    queued, other = machine.bare_task(SEEN), draft(machine)
    execute(machine, queued, "--require-queue")
    assert machine.status(queued) is TaskStatus.COMPLETED
    assert "not queued" in execute(machine, other, "--require-queue", code=66).stderr
    assert machine.status(other) is TaskStatus.CREATED


def test_standalone_mode_names_what_the_cache_lacks(machine: Site) -> None:
    task = draft(machine, requirements={"pip": "six==1.15.0"})
    execute(machine, task, "--standalone-mode", code=1)
    assert f"hpc-agent cache warm --id {task}" in machine.reason(task)
    assert machine.agent("cache", "warm", "--id", task).returncode == 0
    machine.client.session.call("tasks.reset", {"task": task, "force": True})
    execute(machine, task, "--standalone-mode")


def test_clone_runs_a_clone(machine: Site) -> None:
    task = draft(machine)
    done = execute(machine, task, "--clone")
    [clone] = [line.split()[-1] for line in done.stderr.splitlines() if line.startswith("Running the clone")]
    assert machine.status(task) is TaskStatus.CREATED
    assert machine.status(TaskId(clone)) is TaskStatus.COMPLETED
    assert machine.client.tasks.get(TaskId(clone)).name == "Clone of bare"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["-O"], "debug False"),
        (["-OO"], "debug False"),
        (["-O", "-O"], "debug False"),
        (["--log-level", "CRITICAL"], "CLEARML_LOG_LEVEL CRITICAL"),
        ([], "CLEARML_LOG_LEVEL INFO"),
        (["--gpus", "0,2"], "CUDA_VISIBLE_DEVICES 0,2\nNVIDIA_VISIBLE_DEVICES 0,2"),
        (["--gpu", "0-2"], "CUDA_VISIBLE_DEVICES 0,1,2"),
        (["--gpus", "all"], "CUDA_VISIBLE_DEVICES None\nNVIDIA_VISIBLE_DEVICES all"),
        (["--cpu-only"], "CUDA_VISIBLE_DEVICES none\nNVIDIA_VISIBLE_DEVICES none"),
    ],
)
def test_what_the_task_is_started_with(machine: Site, flags: list[str], says: str) -> None:
    task = draft(machine)
    execute(machine, task, *flags)
    assert says in machine.console(task)


def test_docker_without_any_image_is_refused(machine: Site) -> None:
    task = draft(machine)
    execute(machine, task, "--docker", code=1)
    assert "--docker names no image" in machine.reason(task)


@pytest.mark.parametrize("who", ["execute", "daemon"])
def test_git_user_and_pass_open_a_private_repository(machine: Site, tmp_path: Path, who: str) -> None:
    with serve_git(tmp_path / "remotes") as remote:
        work = tmp_path / "remotes" / "model"
        work.mkdir()
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(work)]
        subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
        (work / "train.py").write_text("print('from the private one')\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
        script = {"repository": f"{remote.url}/model", "branch": "main", "entry_point": "train.py"}
        task = draft(machine, "", **script)
        flags = ("--git-user", remote.user, "--git-pass", remote.password)
        # A task may name any host: they are for the one that a person names.
        host: dict[str, Any] = {"CLEARML_AGENT_GIT_HOST": "127.0.0.1"}
        if who == "execute":
            refused = execute(machine, task, *flags, code=1)
            assert "agent.git_host" in refused.stdout
            execute(machine, task, *flags, **host)
        else:
            machine.client.tasks.enqueue(task, machine.queue_id)
            machine.daemon(*flags, **host)
            assert machine.wait_for_end(task) is TaskStatus.COMPLETED
        assert "from the private one" in machine.console(task)
        assert remote.password not in machine.console(task)
        denied = draft(machine, "", **{**script, "branch": "other"})
        execute(machine, denied, "--git-user", remote.user, "--git-pass", "wrong", code=1, **host)


def test_the_interpreters_own_words_are_on_the_terminal(machine: Site) -> None:
    done = execute(machine, draft(machine, "import sys; print('out'); print('err', file=sys.stderr)"))
    assert "out\n" in done.stdout and "err\n" in done.stdout
    assert sys.executable not in done.stderr
