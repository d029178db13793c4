"""Runs the benchmark of ``scripts/bench/latency``: a real server, a daemon with the local scheduler, single scripts.

Each wait is measured some times; the slowest must be within its bound. Only an otherwise idle machine gives figures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.arguments import positive
from faults.bench import Bench, bench, environment

from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.status import TaskStatus

GRACE_S = 5
"""Between SIGTERM and SIGKILL."""
HANG_S = 240.0
BOUNDS = {
    "first line of an enqueued task": 10.0,
    "a line that a running task prints": 5.0,
    "abort of a task that ends at SIGTERM": 10.0,
    "abort of a task that ignores SIGTERM": 15.0,
    "abort while the environment is built": 10.0,
    "refusal of a task that is not staged": 5.0,
    "submission without a server": 20.0,
    "submission with a server that hangs": 40.0,
}
"""Seconds, at most. ``GRACE_S`` is part of the fourth."""
CONF = """
include "{server}"
hpc {{
    scheduler: local
    root: "{root}"
    cache_dir: "{cache}"
    scratch_dir: "{root}/scratch"
    term_grace: {grace}
    envs.build_on: compute
}}
"""
SAYS = """
import sys, time
print("begun", flush=True)
time.sleep(8)
print("printed at", time.time(), flush=True)
time.sleep(8)
"""
ENDS = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"
IGNORES = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{ENDS}"
SLOW_BUILD = """
import time, setuptools
open({mark!r}, "w").close()
time.sleep(300)
setuptools.setup(name="slow")
"""
SBATCH = "#!/bin/sh\necho Submitted batch job 1\n"
"""In place of Slurm's: what is measured is what we add."""


class Site:
    """One machine with a daemon that serves a queue."""

    def __init__(self, bench: Bench, folder: Path, number: int, grace: float = GRACE_S) -> None:
        self.folder = folder / f"run-{number}"
        self.folder.mkdir()
        self.conf = self.folder / "clearml.conf"
        words = {"server": bench.conf, "root": self.folder / "hpc", "cache": folder / "cache", "grace": grace}
        self.conf.write_text(CONF.format(**words))
        self.env = environment(CLEARML_CONFIG_FILE=str(self.conf), HOME=str(self.folder))
        self.client = bench.direct
        self.queue: QueueId = self.client.queues.resolve(f"latency-{number}", create=True)
        self._bench = bench

    def agent(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "hpc_agent", *words]
        return subprocess.run(
            argv, env={**self.env, **env}, cwd=self.folder, text=True, capture_output=True, timeout=HANG_S, check=False
        )

    @contextmanager
    def daemon(self) -> Iterator[None]:
        argv = [sys.executable, "-m", "hpc_agent", "daemon", "--foreground", "--queue", self.queue]
        with (
            (self.folder / "daemon.log").open("wb") as log,
            subprocess.Popen(argv, env=self.env, cwd=self.folder, stdout=log, stderr=log) as child,
        ):
            try:
                yield
            finally:
                child.terminate()

    def task(self, text: str, requirements: str = "", *, enqueue: bool = True) -> TaskId:
        script = {"entry_point": "work.py", "working_dir": ".", "diff": text, "requirements": {"pip": requirements}}
        task = self.client.tasks.create({"name": "latency", "type": "training", "script": script})
        if enqueue:
            self.client.tasks.enqueue(task, self.queue)
        return task

    def console(self, task: TaskId) -> str:
        return "".join(str(event["msg"]) for event in self.client.events.console_after(task, 0))

    def until(self, what: str, holds: Callable[[], object]) -> float:
        """Seconds until it holds."""
        begun = time.monotonic()
        while not holds():
            if time.monotonic() - begun > HANG_S:
                raise RuntimeError(f"waited {HANG_S:g} s for {what}; see {self.folder}")
            time.sleep(0.05)
        return time.monotonic() - begun

    def abort(self, task: TaskId) -> float:
        """Seconds from a person's abort to the final status."""
        self.client.session.call("tasks.stop", {"task": task})
        return self.until("the abort", lambda: self.client.tasks.get_states([task])[task].status is TaskStatus.STOPPED)


def measure(site: Site) -> Iterator[tuple[str, float]]:
    """Each name of ``BOUNDS`` once, with its seconds."""
    site.agent("cache", "warm", "--id", site.task(ENDS, enqueue=False))  # a bare environment, for all of them
    with site.daemon():
        says = site.task(SAYS)
        yield "first line of an enqueued task", site.until("its line", lambda: "begun" in site.console(says))
        site.until("its other line", lambda: "printed at" in site.console(says))
        seen_at = time.time()
        [printed_at] = [line.split()[-1] for line in site.console(says).splitlines() if line.startswith("printed at")]
        yield "a line that a running task prints", seen_at - float(printed_at)
        for name, text in (("ends at", ENDS), ("ignores", IGNORES)):
            task = site.task(text)
            site.until("its line", lambda task=task: "begun" in site.console(task))  # type: ignore[misc]
            yield f"abort of a task that {name} SIGTERM", site.abort(task)
        package, mark = site.folder / "slow", site.folder / "builds"
        package.mkdir()
        (package / "setup.py").write_text(SLOW_BUILD.format(mark=str(mark)))
        task = site.task(ENDS, f"slow @ file://{package}")
        site.until("the build", mark.exists)
        yield "abort while the environment is built", site.abort(task)
    yield from measure_alone(site)


def measure_alone(site: Site) -> Iterator[tuple[str, float]]:
    """What needs no daemon."""
    unstaged = site.task(ENDS, "no-such-package==1.0", enqueue=False)
    seconds, done = timed(lambda: site.agent("execute", "--id", unstaged, "--standalone-mode"))
    expect(done.returncode != 0 and "cache warm" in done.stdout + done.stderr, done)
    yield "refusal of a task that is not staged", seconds
    programs = site.folder / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text(SBATCH)
    (programs / "sbatch").chmod(0o755)
    (site.folder / "train.sh").write_text("#!/bin/sh\necho hello\n")
    path = os.pathsep.join((str(programs), os.environ["PATH"]))

    def submit(**env: str) -> subprocess.CompletedProcess[str]:
        return site.agent("sbatch", "train.sh", PATH=path, **env)

    seconds, done = timed(lambda: submit(CLEARML_API_HOST="http://127.0.0.1:9"))
    expect(done.stdout == "Submitted batch job 1\n" and "submitted without a task" in done.stderr, done)
    yield "submission without a server", seconds
    with hanging_server() as url:
        seconds, done = timed(lambda: submit(CLEARML_API_HOST=url))
    expect(done.stdout == "Submitted batch job 1\n" and "submitted without a task" in done.stderr, done)
    yield "submission with a server that hangs", seconds


def timed(
    call: Callable[[], subprocess.CompletedProcess[str]],
) -> tuple[float, subprocess.CompletedProcess[str]]:
    begun = time.monotonic()
    done = call()
    return time.monotonic() - begun, done


def expect(holds: bool, done: subprocess.CompletedProcess[str]) -> None:
    if not holds:
        raise RuntimeError(f"{done.args} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


@contextmanager
def hanging_server() -> Iterator[str]:
    """One that takes connections and is stopped."""
    code = "import socket, time\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True)\n"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}time.sleep(3600)"], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        port = child.stdout.readline().strip()
        child.send_signal(signal.SIGSTOP)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            child.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=positive, default=3, metavar="N", help="of each wait (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    arguments = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in BOUNDS}
    with tempfile.TemporaryDirectory(prefix="latency") as name, bench(Path(name)) as site:
        for number in range(arguments.runs):
            for what, seconds in measure(Site(site, Path(name), number)):
                taken[what].append(seconds)
    goals = [
        {"name": f"{what}, s", "value": round(max(taken[what]), 2), "bound": bound, "met": max(taken[what]) <= bound}
        for what, bound in BOUNDS.items()
    ]
    for what, times in taken.items():
        print(
            f"{what:<40} median {statistics.median(times):6.2f} s   slowest {max(times):6.2f} s of {BOUNDS[what]:g} s"
        )
    if arguments.json:
        seconds_of = {what: [round(seconds, 3) for seconds in times] for what, times in taken.items()}
        arguments.json.write_text(json.dumps({"goals": goals, "seconds": seconds_of}, indent=2) + "\n")
    return 0 if all(goal["met"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
