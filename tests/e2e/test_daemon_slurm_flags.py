"""What the daemon's flags mean where a batch system owns the GPUs, on real Slurm."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from e2e_site import Site
from waiting import contains, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.schedule import DAYS
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

SEEN = """
import os
for name in sorted(os.environ):
    if name.startswith(("CUDA_", "NVIDIA_", "CLEARML_")) and "TOKEN" not in name:
        print(name, os.environ[name])
print("debug", __debug__)
print("begun", flush=True)
"""
HOLD = f"{SEEN}\nimport time\ntime.sleep(300)\n"


def seen(site: Site, task: TaskId, name: str) -> str:
    lines = dict(line.partition(" ")[::2] for line in site.console(task).splitlines())
    return lines[name]


def daemon(site: Site, *arguments: str) -> None:
    site.start("daemon", "--foreground", "--polling-interval", "0.5", *arguments)


def completed(site: Site, task: TaskId) -> bool:
    return site.wait_for_end(task) is TaskStatus.COMPLETED


def test_gpus_are_asked_for_by_number(site: Site) -> None:
    task = site.bare_task(SEEN)
    daemon(site, "--queue", site.queue, "--gpus", "0,1")
    assert completed(site, task)
    assert len(seen(site, task, "CUDA_VISIBLE_DEVICES").split(",")) == 2


def test_dynamic_gpus_asks_for_what_the_queue_says(site: Site) -> None:
    task = site.bare_task(SEEN)
    daemon(site, "--dynamic-gpus", "--queue", f"{site.queue}=2-4")
    assert completed(site, task)
    assert len(seen(site, task, "CUDA_VISIBLE_DEVICES").split(",")) == 2


def test_cpu_only_optimization_log_level_and_tags_reach_the_job(site: Site) -> None:
    task = site.bare_task(SEEN)
    flags = ("--cpu-only", "-O", "--log-level", "DEBUG", "--child-report-tags", "night", "a b")
    daemon(site, "--queue", site.queue, *flags)
    assert completed(site, task)
    assert seen(site, task, "CUDA_VISIBLE_DEVICES") == "none"
    assert seen(site, task, "CLEARML_LOG_LEVEL") == "DEBUG"
    assert seen(site, task, "debug") == "False"
    assert seen(site, task, "CLEARML_WORKER_TAGS") == "night 'a b'"
    [script] = (site.root / "runs" / task).glob("*/job.sbatch")
    assert "--require-queue --standalone-mode --cpu-only -O --log-level DEBUG\n" in script.read_text()


def test_services_are_long_cpu_jobs_so_many_at_once(site: Site) -> None:
    first, second = site.bare_task(HOLD), site.bare_task(HOLD)
    daemon(site, "--queue", site.queue, "--services-mode", "1")
    wait_until("the first", lambda: site.console(first), contains("begun"))
    [job] = site.jobs(first)
    shown = site.slurm("scontrol", "show", "job", job)
    assert "gres/gpu" not in shown
    # Not the ten minutes of the site's configuration: the partition's own.
    assert "TimeLimit=00:10:00" not in shown
    assert ":service:" in seen(site, first, "CLEARML_WORKER_ID")
    assert site.jobs(second) == []
    site.client.session.call("tasks.stop", {"task": first})
    wait_until("the second", lambda: site.console(second), contains("begun"))


def test_uptime_is_when_to_submit(site: Site) -> None:
    task = site.bare_task(SEEN)
    now = datetime.now().astimezone()
    far = (now + timedelta(hours=12)).hour
    daemon(site, "--queue", site.queue, "--uptime", f"{far}-{far + 1} {DAYS[now.isoweekday() % 7]}")
    wait_until("a look", lambda: (site.folder / "daemon.log").read_text(), contains("queue.inactive"))
    assert site.jobs(task) == []
    site.client.session.call("queues.update", {"queue": site.queue_id, "tags": ["force_workers:on"]})
    assert completed(site, task)


def test_the_owners_token_is_in_no_script_argument_or_exported_environment(site: Site) -> None:
    me = site.client.session.claims["identity"]["user"]
    text = """
import base64, json, os, time
claims = json.loads(base64.urlsafe_b64decode(os.environ["CLEARML_AUTH_TOKEN"].split(".")[1] + "=="))
print("caller", claims["identity"]["user"])
print("keys", json.load(open(os.environ["CLEARML_CONFIG_FILE"]))["api"]["credentials"])
print("begun", flush=True)
time.sleep(300)
"""
    task = site.bare_task(text)
    daemon(site, "--queue", site.queue, "--use-owner-token")
    wait_until("it", lambda: site.console(task), contains("begun"))
    assert (seen(site, task, "caller"), seen(site, task, "keys")) == (me, "{}")
    [conf] = (site.root / "runs" / task).glob("*/owner.conf")
    token = json.loads(conf.read_text())["api"]["auth_token"]
    assert conf.stat().st_mode & 0o777 == 0o600
    [job] = site.jobs(task)
    for shown in (
        site.slurm("scontrol", "show", "job", "--details", job),
        site.slurm("scontrol", "write", "batch_script", job, "-"),
        (conf.parent / "job.sbatch").read_text(),
        (conf.parent / "job.out").read_text(),
    ):
        assert token not in shown


def test_two_daemons_of_one_cluster_have_names_of_their_own(site: Site) -> None:
    for _ in range(2):
        done = site.agent("daemon", "--queue", site.queue, "--detached", CLEARML_WORKER_NAME="login")
        assert done.returncode == 0, done.stderr
    status = site.agent("daemon", "--status", CLEARML_WORKER_NAME="login")
    cluster = site.slurm("scontrol", "show", "config").partition("ClusterName")[2].split()[1]
    for slot in (0, 1):
        assert f"login:slurm:{cluster}:{slot}: process" in status.stdout
        assert site.agent("daemon", "--stop").returncode == 0
    assert site.agent("daemon", "--stop").returncode == 1
