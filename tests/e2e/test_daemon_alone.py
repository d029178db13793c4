"""The daemon on a machine without Slurm is a whole ClearML agent: what each of its flags does there."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site
from faulty_server import faulty_server
from many_signals import send_many_signals
from waiting import contains, wait_until

from hpc_agent.api.client import Client
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.schedule import DAYS
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import AuthError
from hpc_agent.redact import Secret
from hpc_agent.schedulers.local.jobs import JobsFolder

SEEN = """
import os
for name in sorted(os.environ):
    if name.startswith(("CUDA_", "NVIDIA_", "CLEARML_")) and "TOKEN" not in name:
        print(name, os.environ[name])
print("debug", __debug__)
"""
HOLD = f"""{SEEN}
import time
print("begun", flush=True)
time.sleep(300)
"""


def seen(site: Site, task: TaskId, name: str) -> str:
    """What a task printed of its environment; empty where it printed nothing of it."""
    lines = dict(line.partition(" ")[::2] for line in site.console(task).splitlines())
    return lines.get(name, "")


def begun(site: Site, *tasks: TaskId) -> bool:
    """Whether they run; none will when their daemon ended."""
    log = site.folder / "daemon.log"
    assert not site.processes or site.processes[-1].poll() is None, log.read_text()
    return all("begun" in site.console(task) for task in tasks)


def ended(site: Site, task: TaskId) -> TaskStatus:
    """How it ended, while the daemon lives."""

    def look() -> TaskStatus | None:
        status = site.status(task)
        return status if status.is_final or site.processes[-1].poll() is not None else None

    return wait_until("its end", look)


def second_queue(site: Site) -> tuple[str, QueueId]:
    name = f"q-{uuid.uuid4().hex[:8]}"
    return name, site.client.queues.resolve(name, create=True)


def held(site: Site, queue: QueueId, text: str = HOLD) -> TaskId:
    task = site.bare_task(text, enqueue=False)
    site.client.tasks.enqueue(task, queue)
    return task


def workers(site: Site) -> dict[str, dict[str, Any]]:
    return {worker["id"]: worker for worker in site.client.workers.all()}


def started(site: Site, task: TaskId) -> str:
    return str(site.client.tasks.get_object(task)["started"])


def now_and_in_an_hour() -> str:
    """A window that has the present in it, also a minute later."""
    now = datetime.now().astimezone()
    hours = sorted({now.hour, (now + timedelta(hours=1)).hour})
    return f"{','.join(f'{hour}-{hour + 1}' for hour in hours)} SUN-SAT"


def never() -> str:
    """Hours that are far from now."""
    hour = (datetime.now().astimezone() + timedelta(hours=12)).hour
    return f"{hour}-{hour + 1} {DAYS[datetime.now().astimezone().isoweekday() % 7]}"


class TestGpus:
    def test_a_task_that_says_nothing_gets_all(self, machine: Site) -> None:
        task = machine.bare_task(SEEN)
        machine.daemon()
        assert ended(machine, task) is TaskStatus.COMPLETED
        assert seen(machine, task, "CUDA_VISIBLE_DEVICES") == "0,1,2,3"
        assert seen(machine, task, "CLEARML_WORKER_ID") == f"box:0:{task}"

    @pytest.mark.parametrize("flag", ["--gpus", "--gpu"])
    def test_those_of_the_flag_are_handed_out(self, machine: Site, flag: str) -> None:
        task = machine.bare_task(SEEN)
        machine.daemon(flag, "1,3")
        assert ended(machine, task) is TaskStatus.COMPLETED
        assert seen(machine, task, "CUDA_VISIBLE_DEVICES") == seen(machine, task, "NVIDIA_VISIBLE_DEVICES") == "1,3"
        assert seen(machine, task, "CLEARML_WORKER_ID") == f"box:gpu1,3:{task}"

    def test_a_task_may_ask_for_fewer_but_not_for_more(self, machine: Site) -> None:
        fewer, more = (machine.bare_task(SEEN, enqueue=False) for _ in range(2))
        machine.properties(fewer, num_gpus="1")
        machine.properties(more, num_gpus="5")
        for task in (fewer, more):
            machine.client.tasks.enqueue(task, machine.queue_id)
        machine.daemon("--gpus", "all")
        assert ended(machine, fewer) is TaskStatus.COMPLETED
        assert seen(machine, fewer, "CUDA_VISIBLE_DEVICES") in {"0", "1", "2", "3"}
        assert ended(machine, more) is TaskStatus.FAILED
        assert "asks for 5 GPUs, but this machine has 4" in machine.reason(more)

    def test_cpu_only_hides_all(self, machine: Site) -> None:
        task = machine.bare_task(SEEN)
        machine.daemon("--cpu-only")
        assert ended(machine, task) is TaskStatus.COMPLETED
        assert seen(machine, task, "CUDA_VISIBLE_DEVICES") == seen(machine, task, "NVIDIA_VISIBLE_DEVICES") == "none"
        assert seen(machine, task, "CLEARML_WORKER_ID") == f"box:cpu:0:{task}"

    def test_several_tasks_run_at_once_where_there_is_room(self, machine: Site) -> None:
        first, second, third = (machine.bare_task(HOLD) for _ in range(3))
        machine.daemon(CLEARML_AGENT__hpc__local__max_jobs="2")
        wait_until("two to run", lambda: begun(machine, first, second))
        assert machine.status(third) is TaskStatus.QUEUED
        shares = [seen(machine, task, "CUDA_VISIBLE_DEVICES") for task in (first, second)]
        assert sorted(shares) == ["0,1", "2,3"]
        machine.client.session.call("tasks.stop", {"task": first})
        wait_until("the third", lambda: begun(machine, third))

    def test_dynamic_gpus_gives_each_queues_tasks_their_number(self, machine: Site) -> None:
        any_name, any_queue = second_queue(machine)
        one, two, rest = (held(machine, queue) for queue in (machine.queue_id, machine.queue_id, any_queue))
        machine.start(
            *("daemon", "--foreground", "--polling-interval", "0.5", "--dynamic-gpus"),
            *("--queue", f"{machine.queue}=1", f"{any_name}=1-4"),
        )
        wait_until("all to run", lambda: begun(machine, one, two, rest))
        given = [seen(machine, task, "CUDA_VISIBLE_DEVICES").split(",") for task in (one, two, rest)]
        assert [len(gpus) for gpus in given] == [1, 1, 2]
        assert sorted(gpu for gpus in given for gpu in gpus) == ["0", "1", "2", "3"]
        assert seen(machine, rest, "CLEARML_WORKER_ID") == f"box:gpu{','.join(given[2])}"
        assert "box:dgpuall" in workers(machine)
        late = held(machine, any_queue)
        wait_until("its reason", lambda: machine.message(late), contains("Waiting for 1 GPUs, 0 are free"))
        machine.client.session.call("tasks.stop", {"task": one})
        wait_until("the freed GPU's next", lambda: begun(machine, late))
        assert seen(machine, late, "CUDA_VISIBLE_DEVICES").split(",") == given[0]

    def test_a_queue_whose_task_does_not_fit_lets_others_by(self, machine: Site) -> None:
        wide_name, wide_queue = second_queue(machine)
        three = held(machine, wide_queue)
        machine.start(
            *("daemon", "--foreground", "--polling-interval", "0.5", "--dynamic-gpus"),
            *("--queue", f"{wide_name}=3", f"{machine.queue}=1"),
        )
        wait_until("the wide one", lambda: begun(machine, three))
        waiting, small = held(machine, wide_queue), held(machine, machine.queue_id)
        wait_until("the small one", lambda: begun(machine, small))
        assert machine.status(waiting) is TaskStatus.QUEUED

    @pytest.mark.parametrize(
        ("flags", "says"),
        [
            (["--dynamic-gpus", "--queue", "{queue}"], '"{queue}=1" or "{queue}=1-4"'),
            (["--dynamic-gpus"], "--dynamic-gpus needs --queue"),
            (["--dynamic-gpus", "--queue", "{queue}=5"], "this machine has 4"),
            (["--dynamic-gpus", "--cpu-only", "--queue", "{queue}=1"], "one of the two"),
            (["--dynamic-gpus", "--services-mode", "--queue", "{queue}=1"], "one of the two"),
            (["--gpus", "two", "--queue", "{queue}"], '"two" names no GPUs'),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, machine: Site, flags: list[str], says: str) -> None:
        done = machine.agent("daemon", *(flag.format(queue=machine.queue) for flag in flags))
        assert done.returncode == 2
        assert says.format(queue=machine.queue) in done.stderr


class TestQueues:
    def test_by_id_and_created_when_missing(self, machine: Site) -> None:
        name = f"q-{uuid.uuid4().hex[:8]}"
        task = machine.bare_task(SEEN)
        refused = machine.agent("daemon", "--queue", name, "--once")
        assert refused.returncode == 2
        assert f'there is no queue "{name}"' in refused.stderr
        assert refused.stderr.endswith("; --create-queue makes it\n")
        machine.start("daemon", "--foreground", "--create-queue", "--queue", machine.queue_id, name)
        assert ended(machine, task) is TaskStatus.COMPLETED
        late = held(machine, machine.client.queues.resolve(name), SEEN)
        assert ended(machine, late) is TaskStatus.COMPLETED

    def test_the_default_queue_without_any(self, machine: Site) -> None:
        default = machine.client.queues.resolve("default", create=True)
        task = held(machine, default, SEEN)
        machine.start("daemon", "--foreground")
        assert ended(machine, task) is TaskStatus.COMPLETED

    @pytest.mark.parametrize(("flags", "order"), [([], [0, 1, 2, 3]), (["--order-fairness"], [0, 2, 1, 3])])
    def test_by_priority_or_in_turn(self, machine: Site, flags: list[str], order: list[int]) -> None:
        name, queue = second_queue(machine)
        tasks = [held(machine, id, SEEN) for id in (machine.queue_id, machine.queue_id, queue, queue)]
        machine.start("daemon", "--foreground", "--polling-interval", "0.2", "--queue", machine.queue, name, *flags)
        for task in tasks:
            assert ended(machine, task) is TaskStatus.COMPLETED
        assert sorted(range(4), key=lambda index: started(machine, tasks[index])) == order


class TestServices:
    def test_so_many_at_once_each_a_worker_of_its_own(self, machine: Site) -> None:
        first, second, third = (machine.bare_task(HOLD) for _ in range(3))
        machine.daemon("--services-mode", "2", "--child-report-tags", "nightly", "gpu free")
        wait_until("two to run", lambda: begun(machine, first, second))
        assert machine.status(third) is TaskStatus.QUEUED
        assert seen(machine, first, "CUDA_VISIBLE_DEVICES") == "none"
        assert seen(machine, first, "CLEARML_AGENT_SERVICE_TASK") == "1"
        names = {f"box:cpu:0:service:{task}" for task in (first, second)}
        found = workers(machine)
        assert names < found.keys()
        assert [found[name]["tags"] for name in names] == [["nightly", "gpu free"]] * 2
        assert found[f"box:cpu:0:service:{first}"]["task"]["id"] == first

    def test_any_number_without_one(self, machine: Site) -> None:
        tasks = [machine.bare_task(HOLD) for _ in range(3)]
        machine.daemon("--services-mode")
        wait_until("all to run", lambda: begun(machine, *tasks))


class TestSchedule:
    def test_up_now_runs_tasks(self, machine: Site) -> None:
        task = machine.bare_task(SEEN)
        machine.daemon("--uptime", now_and_in_an_hour())
        assert ended(machine, task) is TaskStatus.COMPLETED

    @pytest.mark.parametrize(("flag", "when"), [("--uptime", never), ("--downtime", now_and_in_an_hour)])
    def test_not_up_now_leaves_them_until_the_queue_is_forced(self, machine: Site, flag: str, when: Any) -> None:
        task = machine.bare_task(SEEN)
        machine.daemon(flag, when())
        log = machine.folder / "daemon.log"
        wait_until("a look", log.read_text, contains("queue.inactive"))
        assert machine.status(task) is TaskStatus.QUEUED
        machine.client.session.call("queues.update", {"queue": machine.queue_id, "tags": ["force_workers:on"]})
        assert ended(machine, task) is TaskStatus.COMPLETED

    def test_the_server_can_force_a_worker_off_and_on(self, machine: Site) -> None:
        force = {"worker": "forced", "runtime_properties": [{"key": "force", "value": "off"}]}
        machine.client.session.call("workers.set_runtime_properties", force)
        task = machine.bare_task(SEEN)
        machine.daemon(CLEARML_WORKER_ID="forced")
        log = machine.folder / "daemon.log"
        wait_until("a look", log.read_text, contains("queue.inactive"))
        assert machine.status(task) is TaskStatus.QUEUED
        force["runtime_properties"] = [{"key": "force", "value": "on"}]
        machine.client.session.call("workers.set_runtime_properties", force)
        assert ended(machine, task) is TaskStatus.COMPLETED
        assert seen(machine, task, "CLEARML_WORKER_ID") == f"forced:{task}"

    def test_both_are_an_error(self, machine: Site) -> None:
        done = machine.agent("daemon", "--queue", machine.queue, "--uptime", "17-20 TUE", "--downtime", "9-13", "TUE")
        assert done.returncode == 2
        assert "not both" in done.stderr


class TestFlagsOfTheTask:
    def test_optimization_log_level_and_tags_reach_it(self, machine: Site) -> None:
        task = machine.bare_task(SEEN)
        machine.daemon("-OO", "--log-level", "ERROR", "--force-current-version")
        assert ended(machine, task) is TaskStatus.COMPLETED
        assert seen(machine, task, "debug") == "False"
        assert seen(machine, task, "CLEARML_LOG_LEVEL") == "ERROR"

    def test_a_daemons_own_variables_do_not_beat_its_flags_in_the_job(self, machine: Site) -> None:
        task = machine.bare_task(SEEN)
        machine.daemon("--git-user", "by-flag", CLEARML_AGENT_GIT_USER="by-variable")
        assert ended(machine, task) is TaskStatus.COMPLETED
        assert "CLEARML_AGENT_GIT_USER" not in machine.console(task)
        [conf] = (machine.root / "daemons").glob("*.conf")
        assert json.loads(conf.read_text())["agent"]["git_user"] == "by-flag"
        assert conf.stat().st_mode & 0o777 == 0o600

    def test_the_configurations_own_variables_and_files_reach_it(self, machine: Site) -> None:
        """Secrets among them travel in the jobs' private file, not in an exported environment."""
        with machine.conf.open("a") as conf:
            conf.write('environment { SITE_TOKEN: "from-conf" }\nfiles { f { path: "~/made/f", contents: "held" } }\n')
        text = (
            "import os, pathlib; print('token', os.environ['SITE_TOKEN'])\n"
            "print('file', pathlib.Path('~/made/f').expanduser().read_text())\n"
            "import json; conf = json.load(open(os.environ['CLEARML_CONFIG_FILE']))\n"
            "print('aws', conf['sdk']['aws']['s3']['secret'], os.environ.get('AWS_SECRET_ACCESS_KEY'))\n"
        )
        task = machine.bare_task(text)
        machine.daemon(AWS_SECRET_ACCESS_KEY="s3cr3t", AWS_ACCESS_KEY_ID="id")
        assert ended(machine, task) is TaskStatus.COMPLETED, machine.console(task)
        assert seen(machine, task, "token") == "from-conf"
        assert seen(machine, task, "file") == "held"
        assert seen(machine, task, "aws") == "s3cr3t None"

    def test_standalone_mode_uses_the_cache_only(self, machine: Site) -> None:
        missing = machine.bare_task(SEEN, requirements={"pip": "six==1.16.0"})
        bare = machine.bare_task(SEEN, requirements={"pip": ""})
        with machine.conf.open("a") as conf:
            conf.write(f'hpc {{ cache_dir: "{machine.folder}/cache" }}\n')  # that of all has the package
        machine.daemon("--standalone-mode")
        assert ended(machine, missing) is TaskStatus.FAILED
        assert f"hpc-agent cache warm --id {missing}" in machine.reason(missing)
        warmed = machine.agent("cache", "warm", "--id", bare)
        assert warmed.returncode == 0, warmed.stderr

    def test_the_owners_token_reaches_it_in_a_private_file(self, machine: Site) -> None:
        alice = machine.client.session.call("auth.create_user", {"name": "alice"})["id"]
        text = """
import base64, json, os
claims = json.loads(base64.urlsafe_b64decode(os.environ["CLEARML_AUTH_TOKEN"].split(".")[1] + "=="))
print("caller", claims["identity"]["user"], flush=True)
conf = json.load(open(os.environ["CLEARML_CONFIG_FILE"]))
print("keys", conf["api"]["credentials"], flush=True)
print("begun", flush=True)
import time; time.sleep(300)
"""
        task = _made_by(machine, machine.client.owners.token(alice), text)
        machine.client.tasks.enqueue(task, machine.queue_id)
        machine.daemon("--use-owner-token")
        wait_until("it", lambda: begun(machine, task))
        assert seen(machine, task, "caller") == alice
        assert seen(machine, task, "keys") == "{}"
        [conf] = (machine.root / "runs" / task).glob("*/owner.conf")
        assert conf.stat().st_mode & 0o777 == 0o600
        token = json.loads(conf.read_text())["api"]["auth_token"]
        for supervisor in _supervisors(machine):
            assert token not in Path(f"/proc/{supervisor}/cmdline").read_text(encoding="utf-8")
            assert token not in Path(f"/proc/{supervisor}/environ").read_text(encoding="utf-8")

    def test_it_gets_credentials_of_its_own_that_end_with_it(self, machine: Site) -> None:
        other = machine.bare_task("print(1)", enqueue=False)
        text = """
import base64, json, os, urllib.error, urllib.request
api = json.load(open(os.environ["CLEARML_CONFIG_FILE"]))["api"]
keys = api["credentials"]
def call(action, authorization, **fields):
    request = urllib.request.Request(f"{api['api_server']}/{action}", json.dumps(fields).encode())
    request.add_header("Authorization", authorization)
    request.add_header("Content-Type", "application/json")
    try:
        return json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as error:
        return {"data": error.code}
pair = base64.b64encode(f"{keys['access_key']}:{keys['secret_key']}".encode()).decode()
token = "Bearer " + call("auth.login", "Basic " + pair)["data"]["token"]
print("access_key", keys["access_key"])
print("own", call("tasks.update", token, task=os.environ["CLEARML_TASK_ID"], comment="mine")["data"]["updated"])
print("other", call("tasks.update", token, task="OTHER", comment="mine")["data"])
print("begun", flush=True)
""".replace("OTHER", other)
        task = machine.bare_task(text)
        machine.daemon()
        assert ended(machine, task) is TaskStatus.COMPLETED
        assert (seen(machine, task, "own"), seen(machine, task, "other")) == ("1", "403")
        assert seen(machine, task, "access_key") != machine.client.session.settings.access_key
        [conf] = (machine.root / "runs" / task).glob("*/owner.conf")
        assert conf.stat().st_mode & 0o777 == 0o600
        keys = json.loads(conf.read_text())["api"]["credentials"]
        assert keys["access_key"] == seen(machine, task, "access_key")
        left = Client(
            ApiSettings(
                api_server=machine.client.session.settings.api_server,
                access_key=keys["access_key"],
                secret_key=Secret(keys["secret_key"]),
            )
        )
        with pytest.raises(AuthError, match="has ended"):
            left.session.call("tasks.update", {"task": task, "comment": "afterwards"})

    def test_a_server_without_owners_tokens_is_refused_at_the_start(self, machine: Site) -> None:
        # The proxy in between drops the header that asks for them.
        with faulty_server(machine.client.session.settings.api_server, {}) as url:
            done = machine.agent("daemon", "--queue", machine.queue, "--use-owner-token", CLEARML_API_HOST=url)
        assert done.returncode == 2
        assert "needs a server that gives administrators the tokens of task owners" in done.stderr


def _made_by(machine: Site, token: Secret, text: str) -> TaskId:
    """A task of the token's owner."""
    client = Client(ApiSettings(api_server=machine.client.session.settings.api_server, auth_token=token))
    script = machine.client.tasks.get_object(machine.bare_task(text, enqueue=False))["script"]
    return client.tasks.create({"name": "hers", "type": "training", "script": script})


def _supervisors(machine: Site) -> Iterator[int]:
    for job in JobsFolder(machine.root / "local" / socket.gethostname() / "jobs").all():
        for process in ((claim := job.claim()) and claim.process, job.child()):
            if process and process.is_running():
                yield process.pid


class TestList:
    def test_workers_their_queues_and_what_they_run(self, machine: Site) -> None:
        task = machine.bare_task(HOLD)
        machine.daemon("--child-report-tags", "nightly", CLEARML_WORKER_ID=machine.queue)
        wait_until("it", lambda: begun(machine, task))
        wait_until("both", lambda: {machine.queue, f"{machine.queue}:{task}"} <= workers(machine).keys())
        head, *rows = machine.agent("list").stdout.splitlines()
        assert head.split() == ["WORKER", "RUNS", "TASK", "FOR", "QUEUES", "TAGS", "LAST", "SEEN"]
        [daemon] = [row for row in rows if row.startswith(f"{machine.queue} ")]
        [job] = [row for row in rows if row.startswith(f"{machine.queue}:")]
        assert daemon.split()[1:3] == ["idle", machine.queue]
        assert job.split()[1:3] == ["bare", task]
        assert re.search(r" 0:0\d:\d\d ", job) and " nightly " in job
        raw = json.loads(machine.agent("list", "--json").stdout)
        assert {"id", "ip", "last_activity_time", "queues", "user"} < raw[0].keys()


class TestPresence:
    def test_in_the_background_until_it_is_stopped(self, machine: Site) -> None:
        begin = machine.agent("daemon", "--queue", machine.queue, "--polling-interval", "0.5", "--detached")
        assert begin.returncode == 0, begin.stderr
        assert f"Serving {machine.queue} through this machine as box:0 in the background" in begin.stdout
        task = machine.bare_task(HOLD)
        wait_until("it", lambda: begun(machine, task))
        status = machine.agent("daemon", "--status")
        assert status.returncode == 0, status.stderr
        assert "box:0: process" in status.stdout
        assert f"log: {machine.root}/daemons/box:0.log" in status.stdout
        assert "box:0 takes tasks: always" in status.stdout
        assert f"queue {machine.queue}: 0 waiting, served now" in status.stdout
        stop = machine.agent("daemon", "--stop")
        assert stop.returncode == 0, stop.stderr
        assert "Stopped box:0" in stop.stdout
        assert machine.status(task) is TaskStatus.IN_PROGRESS
        assert machine.agent("daemon", "--status").stdout.startswith("No daemon is running")
        assert "submitted" in (machine.root / "daemons" / "box:0.log").read_text()

    def test_signals_that_come_at_any_moment_do_not_block_it(self, machine: Site) -> None:
        daemon = machine.daemon()
        wait_until("it", lambda: "Serving" in (machine.folder / "daemon.log").read_text())
        send_many_signals(daemon)
        assert daemon.wait(60) == 0

    def test_its_error_at_the_start_is_shown_at_the_terminal(self, machine: Site) -> None:
        machine.daemon("--gpus", "0")
        wait_until("it", lambda: (machine.root / "daemons" / "box:gpu0.json").exists())
        second = machine.agent("daemon", "--queue", machine.queue, "--gpus", "0", "-d")
        assert second.returncode == 1
        assert "a daemon box:gpu0 is running already" in second.stderr

    def test_stop_finds_the_one_with_the_same_flags(self, machine: Site) -> None:
        for flags in (["--gpus", "1"], ["--gpus", "0"], ["--cpu-only"]):
            done = machine.agent("daemon", "--queue", machine.queue, "-d", *flags)
            assert done.returncode == 0, done.stderr
        stops = [
            machine.agent("daemon", "--stop", *flags)
            for flags in (["--gpus", "1"], [], ["--gpus", "3"], ["box:gpu0", "box:gone"], [])
        ]
        assert [stop.returncode for stop in stops] == [0, 0, 1, 1, 1]
        assert [stop.stdout.partition(" (")[0] for stop in stops] == [
            "Stopped box:gpu1",
            "Stopped box:cpu:0",
            "",
            "Stopped box:gpu0",
            "",
        ]
        assert "no daemon of this machine was started with these flags; running: box:gpu0" in stops[2].stderr
        assert "no daemon box:gone is registered here" in stops[3].stderr
        assert "none is running" in stops[4].stderr

    def test_a_daemon_that_was_killed_is_followed_by_another(self, machine: Site) -> None:
        task = machine.bare_task(HOLD)
        first = machine.daemon()
        wait_until("it", lambda: begun(machine, task))
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        machine.daemon()
        machine.client.session.call("tasks.stop", {"task": task})
        assert ended(machine, task) is TaskStatus.STOPPED

    def test_a_task_whose_job_was_killed_gets_a_final_status(self, machine: Site) -> None:
        task = machine.bare_task(HOLD)
        machine.daemon()
        wait_until("it", lambda: begun(machine, task))
        for pid in _supervisors(machine):
            os.killpg(pid, signal.SIGKILL)
        assert ended(machine, task) is TaskStatus.FAILED
        assert machine.reason(task).startswith("Local job 1 FAILED")

    def test_without_foreground_the_log_is_a_file(self, machine: Site) -> None:
        task = machine.bare_task(SEEN)
        machine.start("daemon", "--queue", machine.queue, "--polling-interval", "0.5")
        assert ended(machine, task) is TaskStatus.COMPLETED
        assert "submitted" in (machine.root / "daemons" / "box:0.log").read_text()
        assert "submitted" not in (machine.folder / "daemon.log").read_text()
