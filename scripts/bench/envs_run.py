"""Runs the benchmark of ``scripts/bench/envs``; interleaved, medians, ratios within one run."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hpc_agent.api.client import Client
from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.config.job_config import write_job_config
from hpc_agent.config.load import Configuration, load
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.env import EnvKey
from hpc_agent.domain.ids import TaskId
from hpc_agent.envs import env_lock, interpreter
from hpc_agent.envs.build_steps import build
from hpc_agent.envs.builder import installer_for
from hpc_agent.envs.env_request import request_for_file
from hpc_agent.envs.env_store import EnvStore
from hpc_agent.envs.installers import InstallContext, InstallerRunner
from hpc_agent.file_records import remove_tree, write_record
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.staging import TaskStager

PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "matplotlib")
SCRIPT = "import time\nprint('FIRST', time.time(), flush=True)\n"
JOBS = 50
BOUNDS = {
    "seconds above bare from launch, environment on the node": 0.25,
    "seconds above bare from launch, environment in the shared cache": 0.7,
    "round trips in a row before the process starts": 4.0,
    "requests of a job without console and metrics": 10.0,
}
DELAY_S = 0.2
"""Of each answer, to see how many of them are waited for one after the other."""
_CONSOLE_AND_METRICS = ("events.", "tasks.edit_hyper_params", "tasks.ping")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Bench:
    """A server, a cache, a node and a reference agent in one folder."""

    def __init__(self, folder: Path, peers: Path, packages: tuple[str, ...]) -> None:
        self.folder = folder
        self.peers = peers
        self.packages = packages
        self.settings = PackageSettings()
        self.env = {**os.environ, "HOME": str(folder), "UV_CACHE_DIR": str(folder / "uv"), "NO_COLOR": "1"}
        self.env |= {"PIP_CACHE_DIR": str(folder / "pip"), "CLEARML_CONFIG_FILE": str(folder / "clearml.conf")}
        os.environ["UV_CACHE_DIR"] = self.env["UV_CACHE_DIR"]

    @contextlib.contextmanager
    def server(self) -> Iterator[None]:
        argv = [sys.executable, "-m", "hpc_agent", "server", "--port", "0", "--data-dir", str(self.folder / "server")]
        own = {name: value for name, value in self.env.items() if not name.startswith("CLEARML_")}
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=own)
        assert child.stdout is not None
        child.stdout.readline()
        conf = self.folder / "clearml.conf"
        conf.write_text(
            f'include "{self.folder}/server/clearml.conf"\n'
            f'hpc {{ root: "{self.folder}/hpc", scratch_dir: "{self.scratch}" }}\n'
            f'agent {{ venvs_dir: "{self.folder}/agent/venvs", venvs_cache {{ path: "{self.folder}/agent/cache", '
            f'free_space_threshold_gb: 0 }}, vcs_cache.path: "{self.folder}/agent/vcs" }}\n'
        )
        self.configuration = load(conf, {})
        self.client = Client(self.configuration.settings.api)
        self.queue = self.client.queues.resolve("bench", create=True)
        try:
            yield
        finally:
            child.terminate()
            child.wait()
            child.stdout.close()

    @property
    def cache(self) -> Path:
        return self.folder / "hpc" / "cache"

    @property
    def scratch(self) -> Path:
        return self.folder / "node"

    def task(self, *, enqueue: bool) -> TaskId:
        requirements = {"pip": "\n".join(self.packages)}
        script = {
            "entry_point": "bench.py",
            "working_dir": ".",
            "diff": SCRIPT,
            "binary": "python3",
            "requirements": requirements,
        }
        project = self.client.projects.find_or_create("bench")
        task = self.client.tasks.create({"name": "bench", "type": "training", "project": project, "script": script})
        if enqueue:
            self.client.tasks.enqueue(task, self.queue)
        return task

    def first_line(
        self,
        argv: list[str],
        task: TaskId | None = None,
        variables: Mapping[str, str] = {},
        console: Path | None = None,
    ) -> tuple[float, float]:
        """Seconds from launch to the script's first line, and from the claim (the server's record of the start)."""
        began = time.time()
        env = {**self.env, **variables}
        answer = subprocess.run(argv, env=env, capture_output=True, text=True, cwd=self.folder)
        match = re.search(r"FIRST ([0-9.]+)", console.read_text() if console else answer.stdout)
        if match is None:
            raise SystemExit(f"{argv[0]} did not run the script:\n{answer.stdout}\n{answer.stderr}")
        first = float(match[1])
        if task is None:
            return first - began, first - began
        started = datetime.fromisoformat(self.client.tasks.get_object(task)["started"])
        claimed = started if started.tzinfo else started.replace(tzinfo=timezone.utc)
        return first - began, first - claimed.timestamp()

    def ours(self, api_server: str = "") -> tuple[float, float]:
        """As a job of a daemon, which has staged the task and written the job's configuration."""
        task = self.task(enqueue=True)
        [held] = self.client.queues.get_many([self.queue])
        [entry] = held.entries
        hpc = self.configuration.settings.hpc
        directory = RunsFolder(hpc.runs).of(attempt_for("bench", held.id, task, entry.added)).create()
        staged = TaskStager(self.configuration.settings, SYSTEM).find(self.client.tasks.get(task))
        write_record(directory.stage, staged)
        config = self.folder / "job.conf"
        changes = {"api.api_server": api_server} if api_server else {}
        login = self.client.session.current_login.reveal()
        write_job_config(self.configuration, config, {**changes, "api.login_token": login})
        variables = {"HPC_AGENT_RUN_DIR": str(directory.path), "CLEARML_CONFIG_FILE": str(config)}
        flags = ["--id", task, "--require-queue", "--standalone-mode"]
        argv = [sys.executable, "-m", "hpc_agent", "execute", *flags]
        return self.first_line(argv, task, variables, directory.console().text)

    def reference(self) -> tuple[float, float]:
        task = self.task(enqueue=False)
        return self.first_line([str(self.peers / "bin" / "clearml-agent"), "execute", "--id", task], task)

    def bare(self, python: Path) -> tuple[float, float]:
        script = self.folder / "bench.py"
        script.write_text(SCRIPT)
        return self.first_line([str(python), str(script)])

    def store(self, cache: Path, scratch: Path) -> EnvStore:
        return EnvStore(cache, scratch, self.settings, SYSTEM)


def median_of(values: list[tuple[float, float]]) -> dict[str, float]:
    return {
        "launch_to_first_line": round(statistics.median(v[0] for v in values), 3),
        "claim_to_first_line": round(statistics.median(v[1] for v in values), 3),
    }


def start_up(bench: Bench, rounds: int) -> dict[str, object]:
    """The time before the user's first line, four ways."""
    request = request_for_file("\n".join(bench.packages))
    key = bench.store(bench.cache, bench.scratch).stage(request, say).key
    python = bench.store(bench.cache, bench.scratch).use(key, say).python
    say("Filling the caches of clearml-agent")
    bench.reference()
    runs: dict[str, list[tuple[float, float]]] = {"bare": [], "ready": [], "shared": [], "clearml-agent": []}
    for number in range(rounds):
        say(f"Start-up, round {number + 1} of {rounds}")
        runs["bare"].append(bench.bare(python))
        runs["ready"].append(bench.ours())
        remove_tree(bench.scratch)
        runs["shared"].append(bench.ours())
        runs["clearml-agent"].append(bench.reference())
    found: dict[str, object] = {name: median_of(values) for name, values in runs.items()}
    for moment in ("claim_to_first_line", "launch_to_first_line"):
        bare = found["bare"][moment]  # type: ignore[index]
        above = {name: round(found[name][moment] - bare, 3) for name in runs if name != "bare"}  # type: ignore[index]
        times = {name: round(above["clearml-agent"] / above[name], 1) for name in ("ready", "shared")}
        found[f"{moment}_above_bare"] = above
        found[f"{moment}_times_less_than_clearml-agent"] = times
    return found


def round_trips(bench: Bench, rounds: int) -> dict[str, object]:
    """Answers that a job waits for one after the other, and requests that it makes in all."""
    request = request_for_file("\n".join(bench.packages))
    bench.store(bench.cache, bench.scratch).stage(request, say)
    bench.ours()
    stats = bench.configuration.settings.hpc.root / "stats"
    before = _requests(stats)
    times: dict[float, list[float]] = {0.0: [], DELAY_S: []}
    for number in range(rounds):
        say(f"Round trips, round {number + 1} of {rounds}")
        for delay, seconds in times.items():
            with delayed(bench.configuration, delay) as server:
                seconds.append(bench.ours(server)[0])
    direct, late = (statistics.median(seconds) for seconds in times.values())
    return {
        "in a row before the process starts": round((late - direct) / DELAY_S, 1),
        "requests of a job": round((_requests(stats) - before) / (2 * rounds), 1),
    }


def _requests(stats: Path) -> int:
    """Requests of ``execute`` so far, without those of console and metrics, and the looks at the status."""
    counts = [json.loads(path.read_text())["programs"].get("execute", {}) for path in stats.glob("*.json")]
    made = [pair for found in counts for pair in found.get("server", {}).items()]
    return sum(number for name, number in made if not name.startswith(_CONSOLE_AND_METRICS))


@contextlib.contextmanager
def delayed(configuration: Configuration, seconds: float) -> Iterator[str]:
    """Address of a relay to the server whose answers come so much later."""
    host, _, port = configuration.settings.api.api_server.removeprefix("http://").partition(":")

    def copy(source: socket.socket, target: socket.socket, pause: float) -> None:
        # Each piece by its own time: head and body of an answer come as two, and are late by the same.
        pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        threading.Thread(target=send, args=(pieces, target), daemon=True).start()
        data = b"-"
        while data:
            try:
                data = source.recv(1 << 20)
            except OSError:
                data = b""
            pieces.put((time.monotonic() + pause, data))

    def send(pieces: queue.SimpleQueue[tuple[float, bytes]], target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            due, data = pieces.get()
            while data:
                time.sleep(max(due - time.monotonic(), 0.0))
                target.sendall(data)
                due, data = pieces.get()
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
                for source, target, pause in ((client, server, 0.0), (server, client, seconds)):
                    threading.Thread(target=copy, args=(source, target, pause), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def cold_build(bench: Bench, rounds: int) -> dict[str, object]:
    """From cached wheels only: venv and pip against what we do, with and without byte-code."""
    base = interpreter.find("", bench.settings, say)
    request = request_for_file("\n".join(bench.packages))
    work = bench.folder / "build"

    def venv_and_pip(*flags: str) -> None:
        subprocess.run([base.executable, "-m", "venv", str(work / "env")], check=True, env=bench.env)
        argv = [str(work / "env" / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *flags]
        subprocess.run([*argv, *bench.packages], check=True, env=bench.env)

    def ours(*, compiled: bool) -> None:
        tools = InstallerRunner(bench.settings, work, bench.env)
        installer = installer_for(tools)
        place = InstallContext(work, work)
        locked = env_lock.resolve(request.lines, env_lock.prepare_input(request.lines, (), say), installer, base, place)
        if compiled:
            build(locked, base, installer, tools, place)
        else:
            tools.virtualenv(base, work / "env")
            installer.install(locked.lines, work / "env", base, place)

    def published() -> None:
        bench.store(work / "cache", work / "node").stage(request, lambda _: None)

    ways: dict[str, Callable[[], None]] = {
        "venv + pip": venv_and_pip,
        "venv + pip --no-compile": lambda: venv_and_pip("--no-compile"),
        "ours, without byte-code": lambda: ours(compiled=False),
        "ours, with byte-code": lambda: ours(compiled=True),
        "ours, packed and published": published,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        say("Filling the caches of wheels" if number == 0 else f"Cold build, round {number} of {rounds}")
        for name, way in ways.items():
            remove_tree(work)
            work.mkdir()
            began = time.monotonic()
            way()
            if number:
                seconds[name].append(time.monotonic() - began)
    remove_tree(work)
    found: dict[str, object] = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    pip = statistics.median(seconds["venv + pip"])
    found["times faster than venv + pip"] = {
        name: round(pip / statistics.median(values), 1) for name, values in seconds.items() if name.startswith("ours")
    }
    return found


def many_at_once(bench: Bench) -> dict[str, object]:
    """Fifty jobs want one environment that is not built yet; forked, for fifty interpreters would measure two cores."""
    request = request_for_file("\n".join(bench.packages))
    alone = bench.folder / "alone"
    say("Filling the caches of wheels")
    bench.store(alone / "cache", alone / "node").stage(request, lambda _: None)
    remove_tree(alone)
    began = time.monotonic()
    key = bench.store(alone / "cache", alone / "node").stage(request, lambda _: None).key
    build_seconds = time.monotonic() - began
    began = time.monotonic()
    bench.store(alone / "cache", alone / "node").use(key, lambda _: None)
    one = build_seconds + time.monotonic() - began
    together = bench.folder / "together"
    together.mkdir()
    say(f"{JOBS} jobs at once")
    children = []
    began = time.monotonic()
    for number in range(JOBS):
        pid = os.fork()
        if pid == 0:
            with (together / f"job{number}").open("w", buffering=1) as said:
                store = bench.store(together / "cache", together / "node")
                store.stage(request, lambda line: print(line, file=said))
                print(store.use(request, lambda line: print(line, file=said)).access, file=said)
            os._exit(0)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    slowest = time.monotonic() - began
    console = "".join((together / f"job{number}").read_text() for number in range(JOBS))
    for folder in (alone, together):
        remove_tree(folder)
    return {
        "jobs": JOBS,
        "failed": sum(code != 0 for code in codes),
        "builds": console.count("Building environment"),
        "unpacked": console.count("unpacked\n"),
        "one build and one unpack": round(one, 3),
        "slowest": round(slowest, 3),
        "ratio": round(slowest / one, 2),
    }


def operations(bench: Bench) -> dict[str, object]:
    """File-system calls of one job on the shared folder, by strace; reads of the archive apart."""
    if shutil.which("strace") is None:
        return {"left out": "strace is not installed"}
    request = request_for_file("\n".join(bench.packages))
    key = bench.store(bench.cache, bench.scratch).stage(request, say).key
    imports = "import numpy, pandas, sklearn"
    found: dict[str, object] = {}
    for name, scratch in (("shared", bench.scratch), ("ready", bench.scratch), ("in place", Path("/proc/nowhere"))):
        if name != "ready":
            remove_tree(bench.scratch)
        code = _USE.format(cache=str(bench.cache), scratch=str(scratch), key=key, imports=imports)
        if name == "in place":
            bench.store(bench.cache, scratch).use(EnvKey(key), say)
        trace = bench.folder / "trace"
        argv = ["strace", "-f", "-y", "-e", "trace=%file,%desc", "-o", str(trace), sys.executable, "-c", code]
        subprocess.run(argv, check=True, env=bench.env, capture_output=True)
        lines = [line for line in trace.read_text(errors="replace").splitlines() if str(bench.cache) in line]
        reads = [line for line in lines if "read(" in line and "env.tar.zst" in line]
        found[name] = {"operations": len(lines) - len(reads), "reads of the archive": len(reads)}
        trace.unlink()
    return found


_USE = """
import subprocess
from pathlib import Path
from hpc_agent.clock import SYSTEM
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.envs.env_store import EnvStore
env = EnvStore(Path({cache!r}), Path({scratch!r}), PackageSettings(), SYSTEM).use({key!r}, print)
subprocess.run([env.python, "-c", {imports!r}], check=True)
"""


def show(name: str, found: dict[str, object], indent: str = "") -> None:
    print(f"{indent}{name}")
    for key, value in found.items():
        if isinstance(value, dict):
            show(key, value, indent + "  ")
        else:
            print(f"{indent}  {key:<40} {value}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmark of environments.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packages", nargs="+", default=list(PACKAGES))
    names = ["start-up", "round-trips", "cold-build", "many", "operations"]
    parser.add_argument("--only", choices=names, action="append")
    parser.add_argument("--folder", type=Path, help="where everything lies; memory-backed by default")
    parser.add_argument("--json", type=Path, default=Path("bench-envs.json"))
    options = parser.parse_args()
    shm = Path("/dev/shm")
    where = options.folder or (shm if shm.is_dir() and shutil.disk_usage(shm).free > 8 << 30 else None)
    folder = Path(tempfile.mkdtemp(prefix="hpc-agent-bench-", dir=where))
    bench = Bench(folder, Path(os.environ["HPC_AGENT_PEERS"]), tuple(options.packages))
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "start-up": lambda: start_up(bench, options.rounds),
        "round-trips": lambda: round_trips(bench, options.rounds),
        "cold-build": lambda: cold_build(bench, max(3, options.rounds // 2)),
        "many": lambda: many_at_once(bench),
        "operations": lambda: operations(bench),
    }
    try:
        with bench.server():
            found = {name: part() for name, part in parts.items() if not options.only or name in options.only}
    finally:
        remove_tree(folder)
    machine = {"cpus": os.cpu_count(), "python": sys.version.split()[0], "packages": list(bench.packages)}
    reached = goals(found)
    options.json.write_text(json.dumps({"machine": machine, "goals": reached, **found}, indent=2) + "\n")
    for name, values in found.items():
        show(name, values)
    for goal in reached:
        print(f"{goal['name']:<70} {goal['value']:>7}   at most {goal['bound']:g}")
    print(f"written to {options.json}")
    return 0 if all(goal["met"] for goal in reached) else 1


def goals(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Goals of the parts that were run."""
    above = found.get("start-up", {}).get("launch_to_first_line_above_bare", {})
    trips = found.get("round-trips", {})
    values = [
        above.get("ready"),
        above.get("shared"),
        trips.get("in a row before the process starts"),
        trips.get("requests of a job"),
    ]
    pairs = zip(BOUNDS.items(), values, strict=True)
    return [
        {"name": name, "value": value, "bound": bound, "met": value <= bound}
        for (name, bound), value in pairs
        if value is not None
    ]


if __name__ == "__main__":
    sys.exit(main())
