"""A small site: real Slurm, our server, our daemon, tasks made by the real clearml-task, read back by the real SDK."""

from __future__ import annotations

import getpass
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waiting import HANG_S, contains, wait_until

from hpc_agent.api.client import Client
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.schedulers.local.jobs import JobsFolder

TRAIN = """
import argparse, os, sys, time
from clearml import Task

task = Task.init()
parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=1)
parser.add_argument("--exit-code", type=int, default=0)
arguments = parser.parse_args()
print("gpus", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
for step in range(arguments.steps):
    task.get_logger().report_scalar("loss", "train", 1 / (step + 1), step)
    print("step", step, flush=True)
sys.exit(arguments.exit_code)
"""

UNTIL_GO = """
import os, time
print("begun", flush=True)
while not os.path.exists({go!r}):
    time.sleep(0.1)
print("over", flush=True)
"""
"""A task that goes on until a file ``go`` is there."""

READ_BACK = """
import json, sys
from clearml import Task
task = Task.get_task(task_id=sys.argv[1])
print("RESULT" + json.dumps({
    "status": task.get_status(),
    "reason": task.data.status_reason,
    "arguments": task.get_parameters(),
    "scalars": task.get_reported_scalars(),
    "console": "".join(task.get_reported_console_output(number_of_reports=1000)),
}))
"""


@dataclass
class Site:
    """One queue of its own for each test, served by a daemon of its own; the cache is shared by all."""

    env: Mapping[str, str]
    root: Path
    peers: Path
    folder: Path
    conf: Path
    queue: str
    queue_id: QueueId
    client: Client
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def clearml_task(self, *arguments: str, cwd: Path | None = None) -> TaskId:
        """Create and enqueue a task with the real clearml-task."""
        argv = [str(self.peers / "clearml-task"), "--project", "e2e", "--queue", self.queue, *arguments]
        done = subprocess.run(
            argv, env=self.env, cwd=cwd or self.folder, text=True, capture_output=True, timeout=HANG_S, check=False
        )
        match = re.search(r"Task id=(\w+) sent for execution", done.stdout)
        assert match, done.stdout + done.stderr
        return TaskId(match[1])

    def script_task(self, text: str, *arguments: str, packages: tuple[str, ...] = ("clearml",)) -> TaskId:
        """A task of one script, by the real clearml-task."""
        (self.folder / "train.py").write_text(text)
        return self.clearml_task("--name", "train", "--script", "train.py", "--packages", *packages, *arguments)

    def bare_task(self, text: str, *, enqueue: bool = True, **script: Any) -> TaskId:
        """A task without the SDK and without packages, for tests of what the agent itself does."""
        task = self.client.tasks.create(
            {
                "name": "bare",
                "type": "training",
                "project": self.client.projects.find_or_create("e2e"),
                "script": {
                    "entry_point": "bare.py",
                    "working_dir": ".",
                    "diff": text,
                    "requirements": {"pip": ""},
                    "binary": f"python{sys.version_info[0]}.{sys.version_info[1]}",
                    **script,
                },
            }
        )
        if enqueue:
            self.client.tasks.enqueue(task, self.queue_id)
        return task

    def properties(self, task: TaskId, **values: str) -> None:
        self.client.tasks.set_properties(task, values)

    def agent(self, *arguments: str, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
        """Run hpc-agent to its end."""
        return subprocess.run(
            [sys.executable, "-m", "hpc_agent", *arguments],
            env={**self.env, **env},
            cwd=self.folder,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def start(
        self,
        *arguments: str,
        log: str = "daemon.log",
        under: Sequence[str] = (),
        cwd: Path | None = None,
        **env: str,
    ) -> subprocess.Popen[bytes]:
        """Start hpc-agent; it is ended with the test. ``under``: a command that execs its arguments."""
        with (self.folder / log).open("ab") as sink:
            child = subprocess.Popen(
                [*under, sys.executable, "-m", "hpc_agent", *arguments],
                env={**self.env, **env},
                cwd=cwd or self.folder,
                stdout=sink,
                stderr=sink,
            )
        self.processes.append(child)
        return child

    def daemon(self, *arguments: str, **how: Any) -> subprocess.Popen[bytes]:
        """Serve the queue, started as ``start`` does. A ``queues`` argument of one's own comes from ``arguments``."""
        return self.start("daemon", "--queue", self.queue, "--foreground", "--polling-interval", "1", *arguments, **how)

    def through(self, url: str) -> dict[str, str]:
        """The environment of a daemon, and its jobs, that reach the server at another address."""
        conf = self.folder / "through.conf"
        conf.write_text(f'include "{self.conf}"\napi {{ api_server: "{url}" }}\n')
        return {"CLEARML_CONFIG_FILE": str(conf)}

    def status(self, task: TaskId) -> TaskStatus:
        return self.client.tasks.get_states([task])[task].status

    def reason(self, task: TaskId) -> str:
        return self.client.tasks.get_states([task])[task].reason

    def message(self, task: TaskId) -> str:
        return self.client.tasks.get_states([task])[task].message

    def wait_for_status(self, task: TaskId, *statuses: TaskStatus, timeout: float = HANG_S) -> TaskStatus:
        wanted = f"{task} to be {' or '.join(status.value for status in statuses)}"
        try:
            return wait_until(wanted, lambda: self.status(task), statuses.__contains__, timeout=timeout)
        except BaseException:
            print((self.folder / "daemon.log").read_text() if (self.folder / "daemon.log").exists() else "no daemon")
            print(f"status: {self.client.tasks.get_states([task])}\nconsole: {self.console(task)}")
            raise

    def wait_for_end(self, task: TaskId, timeout: float = HANG_S) -> TaskStatus:
        return self.wait_for_status(task, TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.STOPPED, timeout=timeout)

    def console(self, task: TaskId) -> str:
        return "".join(event["msg"] for event in self.client.events.console_after(task, 0))

    def lines(self, task: TaskId) -> list[str]:
        return self.console(task).splitlines()

    def begun(self, task: TaskId, line: str = "begun") -> str:
        """Wait for the task's first line; returns its job."""
        wait_until(f"{line} of {task}", lambda: self.lines(task), contains(line))
        [job] = self.jobs(task)
        return job

    def read_back(self, task: TaskId) -> dict[str, Any]:
        """What the real SDK says of a task."""
        done = subprocess.run(
            [str(self.peers / "python"), "-c", READ_BACK, task],
            env=self.env,
            text=True,
            capture_output=True,
            timeout=120,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout.split("RESULT", 1)[1].splitlines()[0])
        return answer

    def slurm(self, *argv: str) -> str:
        return subprocess.run(argv, env=self.env, text=True, capture_output=True, timeout=60, check=True).stdout

    def resumed(self, node: str) -> bool:
        """Bring a node back; whether it is. Until Slurm has set it down, it refuses to."""
        state = self.slurm("sinfo", "-h", "-n", node, "-p", "main", "-o", "%T").strip()
        if state.startswith("down"):
            self.slurm("scontrol", "update", f"nodename={node}", "state=resume")
        return state.startswith(("idle", "mixed"))

    def drained(self) -> list[str]:
        """The nodes that take no more jobs."""
        return self.slurm("sinfo", "-h", "-N", "-p", "main", "-t", "drain,drained", "-o", "%N").split()

    def cancel_all_jobs(self) -> None:
        for row in self.slurm("squeue", "-h", "-o", "%i").split():
            self.slurm("scancel", row)

    def configure(self, lines: str) -> None:
        """Add lines to the site's clearml.conf."""
        self.conf.write_text(f"{self.conf.read_text()}\n{lines}\n")

    def jobs(self, task: TaskId) -> list[str]:
        """Ids of the jobs of a task that squeue lists."""
        rows = self.slurm("squeue", "-h", "-o", "%i %j").splitlines()
        return [row.split()[0] for row in rows if f"clearml_task_{task}_" in row]

    def submitted(self, task: TaskId) -> list[str]:
        """Ids of all jobs that a daemon submitted for a task, ended ones too."""
        return [json.loads(file.read_text())["job"] for file in self.root.glob(f"runs/{task}/*/submit.json")]

    def close(self) -> None:
        for child in self.processes:
            child.send_signal(signal.SIGTERM)
        for child in self.processes:
            # One that does not end must not keep the others, and the jobs, from being ended.
            with suppress(subprocess.TimeoutExpired):
                child.wait(20)
            child.kill()
            child.wait()
        # A test that failed has not ended its jobs; they would fail others.
        argv = ["scancel", "--user", getpass.getuser()]
        subprocess.run(argv, env=self.env, capture_output=True, timeout=60, check=False)


def end_local_jobs(site: Site) -> None:
    """Nothing of a machine's jobs outlives its test."""
    jobs = JobsFolder(site.root / "local" / socket.gethostname() / "jobs")
    for job in jobs.all():
        claim = job.claim()
        for process in (claim and claim.process, job.child()):
            if process and process.is_running():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
