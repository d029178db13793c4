"""The real clearml SDK, clearml-task and clearml-agent against the embedded server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import textwrap
from pathlib import Path
from typing import Any, Protocol

import pytest
from clearml_server import ClearmlServer
from http_api import Api
from waiting import HANG_S, contains, equals, wait_until

pytestmark = pytest.mark.peers

TRAIN = """
    import argparse
    from clearml import OutputModel, Task
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    arguments = parser.parse_args()
    task = Task.init("Größe/of sdk", "train it", output_uri=True, auto_connect_frameworks=False)
    width = task.connect({"width": 4})["width"]
    task.connect_configuration({"deep": {"er": 1}}, name="conf")
    log = task.get_logger()
    for i in range(3):
        print("epoch", i, "lr", arguments.lr)
        log.report_scalar("loss", "train", value=1 / (i + 1), iteration=i)
    log.report_single_value("auc", 0.5)
    log.report_histogram("histogram", "h", values=[1, 2, 3], iteration=0)
    open("sample.txt", "w").write("a sample")
    log.report_media("media", "m", iteration=1, local_path="sample.txt")
    task.upload_artifact("numbers", {"a": 1}, wait_on_upload=True)
    open("net ü.bin", "wb").write(bytes(1000) * 1000)
    OutputModel(task=task, name="net", framework="PyTorch").update_weights("net ü.bin", auto_delete_file=False)
    task.set_user_properties(num_gpus=2)
    # Each in one piece, with a blank behind it: the SDK's threads print at the same time.
    print(f"ID {task.id} ")
    print(f"LINK {task.get_output_log_web_page()} ")
    task.close()
"""

READ = """
    import json, sys
    from clearml import Task
    task = Task.get_task(task_id=sys.argv[1])
    copy = Task.clone(task, name="copy")
    print("JSON" + json.dumps({
        "status": task.status,
        "project": task.get_project_name(),
        "parameters": task.get_parameters(),
        "properties": {k: v["value"] for k, v in task.get_user_properties().items()},
        "configuration": task.get_configuration_object_as_dict("conf"),
        "scalars": task.get_reported_scalars(),
        "all scalars": task.get_all_reported_scalars(),
        "last": task.get_last_scalar_metrics(),
        "values": task.get_reported_single_values(),
        "plots": [plot["metric"] for plot in task.get_reported_plots()],
        "samples": [sample["url"] for sample in task.get_debug_samples("media", "m", 1)],
        "console": task.get_reported_console_output(100),
        "artifact": task.artifacts["numbers"].get(),
        "model": open(task.models["output"][0].get_local_copy(), "rb").read() == bytes(1000000),
        "found": [t.id for t in Task.get_tasks(project_name="Größe/of sdk", task_name="^train it$")],
        "queried": Task.query_tasks(project_name="Größe/of sdk", task_filter={"status": ["completed"]}),
        "copy": [copy.status, copy.get_parameters()],
    }, default=dict))
"""

HELLO = """
    import argparse, os, time
    from clearml import Task
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=0)
    arguments = parser.parse_args()
    print("hello, n is", arguments.n, flush=True)
    Task.current_task().get_logger().report_scalar("m", "v", value=arguments.n, iteration=0)
    time.sleep(arguments.seconds)
"""


class Run(Protocol):
    """Runs a program of the peers' environment to its end: exit code and output."""

    def __call__(self, program: str, *arguments: str, timeout: float = 120, **variables: str) -> tuple[int, str]: ...


Trained = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with the scripts, so that nothing of the user's own configuration or cache is touched."""
    folder = tmp_path_factory.mktemp("home")
    for name, text in {"train.py": TRAIN, "read.py": READ, "hello.py": HELLO}.items():
        (folder / name).write_text(textwrap.dedent(text))
    return folder


@pytest.fixture(scope="module")
def environ(clearml_server: ClearmlServer, home: Path) -> dict[str, str]:
    """pip keeps its cache and its index, everything else is new."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pip"
    return {"PIP_CACHE_DIR": str(cache), **clearml_server.env, "HOME": str(home)}


@pytest.fixture(scope="module")
def run(peers: Path, environ: dict[str, str], home: Path) -> Run:
    def run_to_the_end(program: str, *arguments: str, timeout: float = 120, **variables: str) -> tuple[int, str]:
        ended = subprocess.run(
            [peers / program, *arguments],
            env={**environ, **variables},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        return ended.returncode, ended.stdout

    return run_to_the_end


@pytest.fixture(scope="module")
def trained(run: Run) -> Trained:
    """(id, console, what the SDK reads back) of a script that ran with the SDK, without an agent."""
    code, console = run("python", "train.py", "--lr", "0.3")
    assert code == 0, console
    [task] = re.findall(r"ID ([0-9a-f]{32})", console)
    code, read = run("python", "read.py", task)
    assert code == 0, read
    return task, console, json.loads(read.split("JSON", 1)[1])


def test_a_script_with_the_sdk_is_recorded_whole(trained: Trained) -> None:
    task, _, read = trained
    assert read["status"] == "completed"
    assert read["project"] == "Größe/of sdk"
    assert read["parameters"] == {"Args/lr": "0.3", "General/width": "4", "properties/num_gpus": "2"}
    assert read["properties"] == {"num_gpus": "2"}
    assert read["configuration"] == {"deep": {"er": 1}}
    assert read["scalars"]["loss"]["train"]["y"] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert read["all scalars"]["loss"]["train"]["x"] == [0, 1, 2]
    assert read["last"]["loss"]["train"] == {"last": pytest.approx(1 / 3), "min": pytest.approx(1 / 3), "max": 1.0}
    assert read["values"] == {"auc": 0.5}
    assert read["plots"] == ["histogram"]
    assert len(read["samples"]) == 1
    assert "epoch 2 lr 0.3" in "".join(read["console"])
    assert read["artifact"] == {"a": 1}
    assert read["model"] is True
    assert read["found"] == read["queried"] == [task]
    assert read["copy"] == ["created", read["parameters"]]


def test_the_link_that_the_sdk_prints_shows_the_task(trained: Trained, api: Api) -> None:
    _, console, _ = trained
    link = console.split("LINK ")[1].split()[0]
    assert link.startswith(api.url)
    page = api.raw(link.removeprefix(api.url), headers={"Authorization": api.basic(api.access, api.secret)})
    assert "epoch 2 lr 0.3" in page.text


def test_execute_remotely_leaves_the_task_in_the_queue(run: Run, home: Path, api: Api, queue: str) -> None:
    (home / "remote.py").write_text(
        "from clearml import Task\n"
        "task = Task.init('Remote work', 'remote', auto_connect_frameworks=False)\n"
        f"task.execute_remotely(queue_name={api('queues.get_by_id', queue=queue)['queue']['name']!r})\n"
        "print('never')\n"
    )
    code, console = run("python", "remote.py")
    assert code == 0, console
    assert "never" not in console
    (entry,) = api("queues.get_by_id", queue=queue)["queue"]["entries"]
    task = api("tasks.get_by_id", task=entry["task"])["task"]
    assert (task["name"], task["status"], task["system_tags"]) == ("remote", "queued", [])


def enqueue(run: Run, api: Api, name: str, *flags: str) -> str:
    """What clearml-task made: the task's id. Queue and project are called like the task."""
    api("queues.create", name=name)
    what = ("--project", name, "--name", name, "--script", "hello.py", "--packages", "clearml", "--queue", name)
    code, console = run("clearml-task", *what, *flags)
    assert code == 0, console
    task = console.split("New task created id=")[1].split()[0]
    assert f"{api.url}/projects/" in console
    assert api.status(task) == "queued"
    return task


def test_clearml_agent_executes_what_clearml_task_enqueued(run: Run, api: Api) -> None:
    task = enqueue(run, api, "for execute", "--args", "n=5")
    code, console = run(
        "clearml-agent", "execute", "--id", task, "--require-queue", "--full-monitoring", timeout=2 * HANG_S
    )
    assert code == 0, console
    found = api("tasks.get_by_id", task=task)["task"]
    assert (found["status"], found["status_reason"]) == ("completed", "worker execution done")
    assert found["hyperparams"]["Args"]["n"]["value"] == "5"
    assert api("events.scalar_metrics_iter_histogram", task=task)["m"]["v"]["y"] == [5.0]
    assert "hello, n is 5" in console_of(api, task)
    # Its queue is empty now, so a second start finds the door closed.
    code, console = run("clearml-agent", "execute", "--id", task, "--require-queue")
    assert code == 1
    assert "not queued" in console


def console_of(api: Api, task: str) -> str:
    return "".join(event["msg"] for event in api("events.get_task_log", task=task, order="asc")["events"])


def test_clearml_agent_daemon_serves_a_queue_and_obeys_an_abort(
    peers: Path, environ: dict[str, str], home: Path, run: Run, api: Api
) -> None:
    task = enqueue(run, api, "for daemon", "--args", "seconds=300")
    # The environment that has clearml already serves: another test builds one.
    own = {"CLEARML_AGENT_SKIP_PIP_VENV_INSTALL": str(peers / "python"), "CLEARML_WORKER_ID": "real:daemon"}
    daemon = subprocess.Popen(
        [peers / "clearml-agent", "daemon", "--foreground", "--queue", "for daemon"],
        env={**environ, **own},
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until("its first line", lambda: console_of(api, task), contains("hello, n is 1"))
        (worker,) = api("workers.get_all", worker_pattern="^real:daemon$")["workers"]
        assert worker["task"]["id"] == task
        api("tasks.stop", task=task)
        wait_until("it to be stopped", lambda: api.status(task), equals("stopped"))
        assert api("tasks.get_by_id", task=task)["task"]["status_reason"] == "task was stopped by tasks.stop"
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
        assert api("workers.get_all", worker_pattern="^real:daemon$")["workers"] == []
    finally:
        daemon.kill()
        daemon.wait()
