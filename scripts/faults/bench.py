"""A server with a proxy before it, and what was seen of each task: the ledger that says lost, run twice, wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from faults.troubled import Troubled, troubled
from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.ids import QueueId, TaskId

SCRIPTS = Path(__file__).parents[1]
FINALS = ("completed", "failed", "stopped")

SCRIPT = """
import os, sys, time
ledger = os.open({ledger!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(ledger, b"start %d\\n" % os.getpid())
for number in range({lines}):
    print("line", number, flush=True)
    time.sleep({pause})
os.write(ledger, b"end\\n")
sys.exit({code})
"""


@dataclass(frozen=True)
class Work:
    """What a task does: lines with pauses between them, and an exit code."""

    lines: int = 5
    pause: float = 0.05
    code: int = 0

    def script(self, ledger: Path) -> str:
        return SCRIPT.format(ledger=str(ledger), lines=self.lines, pause=self.pause, code=self.code)


@dataclass
class Finals:
    """Final statuses that the server accepted, by task."""

    by_task: dict[str, Counter[str]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, task: str, endpoint: str) -> None:
        with self.lock:
            self.by_task.setdefault(task, Counter())[endpoint] += 1

    def of(self, task: TaskId) -> int:
        with self.lock:
            return sum(self.by_task.get(task, Counter()).values())


class Bench:
    """``direct`` sees the server as it is; everything else goes through ``proxy``."""

    def __init__(self, folder: Path, proxy: Troubled, conf: Path) -> None:
        self.folder = folder
        self.proxy = proxy
        self.conf = conf
        self.direct = Client(load(conf, {}).settings.api)
        self.finals = Finals()
        self.slurm: Mapping[str, str] = {}
        """What the environment of a Slurm's user has, where there is a Slurm."""
        proxy.on_answer = self._on_answer

    def _on_answer(self, endpoint: str, request: bytes, status: int) -> None:
        service, _, action = endpoint.partition(".")
        if service == "tasks" and action in FINALS and status == 200:
            match = re.search(rb'"task": ?"([0-9a-f]+)"', request)
            if match:
                self.finals.note(match[1].decode(), action)

    def task(self, name: str, queue: QueueId, text: str, **properties: str) -> TaskId:
        task = self.direct.tasks.create(
            {
                "name": name,
                "type": "training",
                "script": {
                    "entry_point": "work.py",
                    "working_dir": ".",
                    "diff": text,
                    "requirements": {"pip": ""},
                    "binary": f"python{sys.version_info[0]}.{sys.version_info[1]}",
                },
            }
        )
        if properties:
            self.direct.tasks.set_properties(task, properties)
        self.direct.tasks.enqueue(task, queue)
        return task

    def lines(self, task: TaskId, rank: int = 0) -> list[str]:
        """The task's own lines on the server, of one rank."""
        found: list[str] = []
        after = 0
        while events := self.direct.events.console_after(task, after):
            found += [line for event in events for line in str(event["msg"]).splitlines()]
            after = int(events[-1]["timestamp"])
        return own_lines(found, rank)


def own_lines(lines: list[str], rank: int = 0) -> list[str]:
    prefix = rf"\[n\d+:{rank}\] " if rank else ""
    return [match[1] for line in lines if (match := re.fullmatch(rf"{prefix}(line \d+)", line))]


def printed(runs: Path, task: TaskId) -> list[str]:
    """The task's own lines on disk, over all attempts, in the order in which they were written."""
    consoles = sorted((runs / task).glob("*/console*.log"), key=lambda path: path.stat().st_mtime)
    return own_lines([line for path in consoles for line in path.read_text().splitlines()])


def starts(ledger: Path) -> int:
    return ledger.read_text(encoding="utf-8").count("start ") if ledger.exists() else 0


@contextmanager
def server(folder: Path, port: int = 0) -> Iterator[tuple[str, Path]]:
    """A real server; its address and the clearml.conf that lets clients in."""
    process, url = start_server(folder, port)
    try:
        yield url, folder / "clearml.conf"
    finally:
        process.kill()
        process.communicate()


def start_server(folder: Path, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "hpc_agent", "server", "--port", str(port), "--data-dir", str(folder)]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            argv, env=environment(HOME=str(folder)), stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("Listening on "):
        process.kill()
        raise RuntimeError(f"the server did not start; see {folder / 'server.log'}")
    return process, line.split()[-1]


def environment(**more: str) -> dict[str, str]:
    """Ours, without anything of another ClearML or Slurm, and with these modules on the path."""
    # COVERAGE_: each call outside is counted and tried, and what measures coverage would make some of its own.
    foreign = ("CLEARML_", "TRAINS_", "SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "HPC_AGENT_", "COVERAGE_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = os.pathsep.join(filter(None, [str(SCRIPTS), str(SCRIPTS.parent), own.get("PYTHONPATH", "")]))
    return {**own, "PYTHONPATH": path, **more}


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    with server(folder / "server") as (url, conf), troubled(url) as proxy:
        yield Bench(folder, proxy, conf)
