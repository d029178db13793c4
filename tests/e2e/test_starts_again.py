"""A task's job starts, or starts again, while its user, its site and the network are not idle."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from e2e_site import Site
from faults.troubled import troubled
from http_git import serve_git
from served_queues import serve
from waiting import contains, empty, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"
CONTINUES = """
import os, time
from clearml import Task
task = Task.init(continue_last_task=True)
begin = task.get_last_iteration() + 1 if os.path.exists({path!r}) else 0
print("from step", begin, flush=True)
for step in range(begin, 6):
    task.get_logger().report_scalar("loss", "train", 1 / (step + 1), step)
    if step == 2 and not begin:
        task.flush(wait_for_uploads=True)
        open({path!r}, "w").close()
        print("half way", flush=True)
        time.sleep(600)
print("last step", step, flush=True)
"""
SAVES = """
import os, signal, sys, time
path = {path!r}
starts = len(open(path).readlines()) if os.path.exists(path) else 0
open(path, "a").write("start\\n")
print("start", starts, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if starts:
    sys.exit(0)
time.sleep(600)
"""


def abort(site: Site, task: TaskId) -> None:
    site.client.session.call("tasks.stop", {"task": task})


def test_a_requeued_task_goes_on_where_the_sdk_says_that_it_was(site: Site) -> None:
    task = site.script_task(CONTINUES.format(path=str(site.folder / "half")))
    site.daemon()
    job = site.begun(task, "half way")
    site.slurm("scontrol", "requeue", job)
    # Slurm lets a job that its owner requeued wait for two minutes.
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    seen = site.lines(task)
    assert f"Restart 1 of job {job}" in seen
    starts = [line for line in seen if line.startswith("from step")]
    assert starts[0] == "from step 0"
    assert len(starts) == 2 and starts[1] != "from step 0"
    assert [line for line in seen if line.startswith("last step")] == ["last step 5"]
    scalars = site.read_back(task)["scalars"]["loss"]["train"]
    assert len(scalars["x"]) == len(set(scalars["x"]))


def test_an_abort_while_no_daemon_looks_is_obeyed_by_the_next_start(site: Site) -> None:
    served = serve(site, {"held": ""})
    task = served.task("held", SLEEP)
    job = site.begun(task)
    site.slurm("scontrol", "requeuehold", job)
    wait_until("its message", lambda: site.message(task).startswith("requeued, waiting"))
    served.daemon.terminate()
    served.daemon.wait(60)
    abort(site, task)
    assert "stopping" in site.message(task).lower()
    site.slurm("scontrol", "release", job)
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    assert site.reason(task) == "aborted by its user"
    wait_until("its job to leave", lambda: site.jobs(task), empty)
    assert site.lines(task).count("begun") == 1


def test_an_abort_between_claim_and_start_is_obeyed(site: Site, clearml_server: object) -> None:
    conf = site.folder / "through.conf"
    task = site.bare_task("print('ran', flush=True)\n")
    with troubled(clearml_server.url) as proxy:  # type: ignore[attr-defined]
        conf.write_text(f'include "{site.conf}"\napi {{ api_server: "{proxy.url}" }}\n')
        aborted: list[str] = []

        def on_answer(endpoint: str, request: bytes, _status: int) -> None:
            if endpoint == "queues.remove_task" and task.encode() in request and not aborted:
                aborted.append(endpoint)
                abort(site, task)

        proxy.on_answer = on_answer
        site.daemon(CLEARML_CONFIG_FILE=str(conf))
        assert site.wait_for_end(task) is TaskStatus.STOPPED
        assert aborted
        wait_until("its job to leave", lambda: site.jobs(task), empty)
        wait_until("the daemon to be through with it", lambda: list((site.root / "runs" / task).glob("*/settled.json")))
    assert site.status(task) is TaskStatus.STOPPED
    assert "ran" not in site.lines(task)


def test_where_a_job_may_not_be_requeued_the_task_goes_back_to_its_queue(site: Site) -> None:
    """One restart of one is used by that, not two."""
    tools = site.folder / "tools"
    tools.mkdir()
    real = shutil.which("scontrol")
    (tools / "scontrol").write_text(
        "#!/bin/sh\n"
        'case "$*" in *requeue*) echo "Requesting requeue is disabled for this job" >&2; exit 1;; esac\n'
        f'exec {real} "$@"\n'
    )
    (tools / "scontrol").chmod(0o755)
    served = serve(
        site, {"once": "on_time_limit: requeue, max_restarts: 1"}, PATH=f"{tools}{os.pathsep}{os.environ['PATH']}"
    )
    task = served.task("once", SAVES.format(path=str(site.folder / "starts")), time_limit="1")
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    seen = site.lines(task)
    assert [line for line in seen if line.startswith("start ")] == ["start 0", "start 1"]
    refused = "cannot be started again (Requesting requeue is disabled for this job): its daemon puts the task back"
    assert any(refused in line for line in seen)
    assert any("back to the head of its queue (restart 1)" in line for line in seen)
    assert not any("is started again" in line for line in seen)


def test_a_git_host_that_is_away_delays_a_task_and_fails_none(site: Site) -> None:
    with serve_git(site.folder / "remotes") as remote:
        repository = site.folder / "remotes" / "model"
        _commit(repository, {"train.py": "print('from the repository', flush=True)\n"})
        remote.unavailable = True
        waits = site.bare_task("", repository=f"{remote.url}/model", branch="main", entry_point="train.py")
        missing = site.bare_task("", repository=f"{site.folder}/nowhere", branch="main", entry_point="train.py")
        host = {"CLEARML_AGENT_GIT_HOST": "127.0.0.1"}
        site.daemon(CLEARML_AGENT_GIT_USER=remote.user, CLEARML_AGENT_GIT_PASS=remote.password, **host)
        assert site.wait_for_end(missing) is TaskStatus.FAILED
        wait_until("two tries", lambda: remote.requests, lambda found: len(found) > 1)
        wait_until("the reason in its message", lambda: site.message(waits), contains("503"))
        assert site.status(waits) is TaskStatus.QUEUED
        remote.unavailable = False
        assert site.wait_for_end(waits) is TaskStatus.COMPLETED
    assert "from the repository" in site.lines(waits)


def _commit(repository: Path, files: dict[str, str]) -> None:
    repository.mkdir(parents=True)
    for name, text in files.items():
        (repository / name).write_text(text)
    author = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "--all"], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=repository, check=True, capture_output=True)
