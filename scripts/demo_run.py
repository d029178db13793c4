"""Runs the demonstration inside the environment that ``scripts/demo`` made."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

AGENT = [sys.executable, "-m", "hpc_agent"]
TASK = [str(Path(sys.executable).with_name("hpc-task"))]
SCRIPT = Path(__file__).parent / "examples" / "train.py"
LIMIT_S = 900
FINAL = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.STOPPED)


def say(text: str) -> None:
    bold = ("\033[1m", "\033[0m") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print(f"{bold[0]}{text}{bold[1]}", flush=True)


def pick_scheduler(asked: str) -> str:
    """Slurm where it is there, answers, and its nodes can reach a server on loopback."""
    if asked == "local" or (asked == "auto" and not shutil.which("sbatch")):
        return "local"
    try:
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%o"], capture_output=True, text=True, timeout=20, check=False
        )
        problem = "" if done.returncode == 0 and done.stdout.strip() else "its controller does not answer"
        addresses = set(done.stdout.split())
    except (OSError, subprocess.TimeoutExpired):
        problem, addresses = "its controller does not answer", set()
    if not problem and not addresses <= {"127.0.0.1", "localhost", os.uname().nodename}:
        problem = "its nodes are other machines, which cannot reach a server on this one's loopback address"
    if not problem:
        return "slurm"
    if asked == "slurm":
        sys.exit(f"error: Slurm cannot be used: {problem}")
    say(f"Slurm is installed, but {problem}: using the local scheduler")
    return "local"


@contextmanager
def running(argv: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that ends with the block."""
    with log.open("wb") as sink:
        child = subprocess.Popen(argv, env=env, stdout=sink, stderr=subprocess.STDOUT)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for_server(child: subprocess.Popen[bytes], conf: Path, log: Path) -> None:
    deadline = time.monotonic() + 60
    while "Listening on" not in log.read_text(encoding="utf-8") or not conf.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"error: the server did not start:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.1)


def enqueue(env: dict[str, str]) -> tuple[TaskId, str]:
    """Create the task as a user would, with hpc-task."""
    argv = [*TASK, "--project", "demo", "--name", "fit a line", "--script", str(SCRIPT), "--queue", "demo"]
    argv += ["--packages", "numpy", "clearml", "--args", "epochs=8", "rate=0.6", "--skip-repo-detection", "--json"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        sys.exit(f"error: hpc-task failed:\n{done.stderr}")
    answer = json.loads(done.stdout)
    return TaskId(answer["id"]), str(answer["page"])


def follow(client: Client, task: TaskId, daemon: subprocess.Popen[bytes], log: Path) -> TaskStatus:
    """Print the console as it grows, until the task has its final status."""
    deadline, seen, shown = time.monotonic() + LIMIT_S, 0, ""
    while True:
        get_states = client.tasks.get_states([task])[task]
        if get_states.status is TaskStatus.QUEUED and get_states.message and get_states.message != shown:
            shown = get_states.message
            print(f"  ({shown})", flush=True)
        for event in client.events.console_after(task, seen):
            seen = int(event["timestamp"])
            for line in str(event["msg"]).splitlines():
                print(f"  | {line}", flush=True)
        if get_states.status in FINAL:
            return get_states.status
        if daemon.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"error: the task did not end; the daemon's log:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.3)


def run(folder: Path, scheduler: str, keep: bool) -> int:
    conf = folder / "clearml.conf"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "TRAINS_"))}
    env |= {"CLEARML_CONFIG_FILE": str(conf)}
    env |= {"CLEARML_AGENT__hpc__root": f'"{folder}"', "CLEARML_AGENT__hpc__scheduler": scheduler}
    server_log, daemon_log = folder / "server.log", folder / "daemon.log"
    say("Starting the embedded server")
    server = [*AGENT, "server", "--port", "0", "--data-dir", str(folder / "server"), "--conf", str(conf)]
    environment_of_server = {**env}
    environment_of_server.pop("CLEARML_CONFIG_FILE")
    with running(server, environment_of_server, server_log) as child:
        wait_for_server(child, conf, server_log)
        client = Client(load(conf, {}).settings.api)
        client.queues.resolve("demo", create=True)
        task, page = enqueue(env)
        say(f"Enqueued task {task}")
        through = "Slurm" if scheduler == "slurm" else "the local scheduler"
        say(f"Serving its queue through {through}; the first time, its packages are installed")
        daemon_command = [*AGENT, "daemon", "--queue", "demo", "--foreground", "--polling-interval", "0.5"]
        with running(daemon_command, env, daemon_log) as daemon:
            status = follow(client, task, daemon, daemon_log)
        get_states = client.tasks.get_states([task])[task]
        say(f"The task is {status.value} ({get_states.reason})")
        print(f"Its page: {page}")
        if keep:
            print(f"The server stays up until Ctrl-C; log in with the keys in {conf}", flush=True)
            signal.pause()
        else:
            print("The server ends with this demonstration; scripts/demo --keep leaves it up for a look at the page")
    return 0 if status is TaskStatus.COMPLETED else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="The whole way on one machine.")
    parser.add_argument("--keep", action="store_true", help="leave the server up until Ctrl-C")
    parser.add_argument("--scheduler", choices=("auto", "slurm", "local"), default="auto")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scheduler = pick_scheduler(arguments.scheduler)
    folder = Path(tempfile.mkdtemp(prefix="hpc-agent-demo-"))
    try:
        return run(folder, scheduler, arguments.keep)
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
