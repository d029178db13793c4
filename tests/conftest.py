"""Real parts that many tests share."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from capabilities import missing
from clearml_server import ClearmlServer
from slurm_cluster.releases import VERSION_VARIABLE, slurm_release

SLURM_CLUSTER = Path(__file__).parent.parent / "scripts" / "slurm-cluster"
GRIDENGINE_CLUSTER = SLURM_CLUSTER.with_name("gridengine-cluster")
NOT_INSTALLED = 4
FOREIGN = (
    "SLURM_",
    "SBATCH_",
    "SALLOC_",
    "SRUN_",
    "SQUEUE_",
    "SACCT_",
    "SINFO_",
    "CLEARML_",
    "TRAINS_",
    "HPC_AGENT_SITE",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "FORCE_COLOR",
)
"""Variables of the shell that runs the tests, which the programs under test would obey. Python's readline, too, exports
the size of the terminal (COLUMNS, LINES)."""

pytest_plugins = ["capability_plugin", "exploring"]
"""The second sets Hypothesis up for all properties."""


def pytest_configure() -> None:
    """All programs under test find the Slurm that the tests shall meet; the machine's own where none is named."""
    _forget_what_was_inherited()
    if version := os.environ.get(VERSION_VARIABLE):
        os.environ["PATH"] = os.pathsep.join((str(slurm_release(version).bin), os.environ["PATH"]))


def pytest_collection_finish() -> None:
    """Thousands of modules and tests stay to the end: looking at them again and again costs a tenth of the processor
    time of the quick ones."""
    gc.collect()
    gc.freeze()


def _forget_what_was_inherited() -> None:
    """What a shell in the background (SIGINT) or nohup (SIGHUP) ignores, every program of a test would ignore too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure names the folder where its test has left its files."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and folder:
        report.user_properties.append(("folder", str(folder)))
    return report


@dataclass(frozen=True)
class SlurmCluster:
    """A running Slurm of the tests' own; see scripts/slurm-cluster for its nodes, partitions, accounts and QOS."""

    dir: Path
    env: Mapping[str, str]
    """The whole environment for programs that shall see this cluster."""

    def run(self, *argv: str, timeout: float = 60) -> str:
        """Run a command (``sbatch``, ``scontrol`` …) against the cluster; returns what it printed."""
        return subprocess.run(argv, env=self.env, text=True, check=True, capture_output=True, timeout=timeout).stdout

    def stop(self, *daemons: str) -> None:
        """End some of its daemons (``slurmctld``, ``slurmdbd``, ``n1`` …), to make a fault."""
        _slurm_cluster("stop", *daemons, directory=self.dir)

    def start(self) -> None:
        """Start whatever was stopped, and wait until all nodes are up."""
        _slurm_cluster("start", directory=self.dir)


def _slurm_cluster(*arguments: str, directory: Path) -> str:
    argv = [sys.executable, str(SLURM_CLUSTER), *arguments, "--dir", str(directory), "--json"]
    answer = subprocess.run(argv, text=True, capture_output=True, timeout=240, check=False)
    if answer.returncode == NOT_INSTALLED:
        missing("slurm", answer.stderr.strip())
    if answer.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{answer.stderr}")
    return answer.stdout


@contextmanager
def _running_slurm(directory: Path, *flags: str) -> Iterator[SlurmCluster]:
    foreign = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    try:
        described = json.loads(_slurm_cluster("start", *flags, directory=directory))
        if not described["accounting"] and "--no-accounting" not in flags:
            raise RuntimeError(f"the cluster in {directory} came up without accounting: see the logs there")
        yield SlurmCluster(directory, {**own, **described["env"]})
    finally:
        _slurm_cluster("stop", directory=directory)


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A real Slurm, started for this session; tests that use it are skipped where Slurm is not installed."""
    with _running_slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def second_slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Another real Slurm next to ``slurm_cluster``, without accounting."""
    with _running_slurm(tmp_path_factory.mktemp("slurm2"), "--no-accounting") as cluster:
        yield cluster


@dataclass(frozen=True)
class GridEngine:
    """A running Grid Engine of the tests' own; see scripts/gridengine-cluster for its queue and resources."""

    env: Mapping[str, str]
    """The whole environment for programs that shall see it."""

    def run(self, *argv: str, timeout: float = 60) -> str:
        """Run a command (``qsub``, ``qstat`` …); returns what it printed."""
        return subprocess.run(argv, env=self.env, text=True, check=True, capture_output=True, timeout=timeout).stdout


@pytest.fixture(scope="session")
def gridengine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridEngine]:
    """A real Grid Engine, started for this session; tests that use it are skipped where it cannot be had."""
    script = [sys.executable, str(GRIDENGINE_CLUSTER)]
    directory = ["--dir", str(tmp_path_factory.mktemp("gridengine"))]
    answer = subprocess.run([*script, "start", "--json", *directory], text=True, capture_output=True, check=False)
    if answer.returncode == NOT_INSTALLED:
        missing("gridengine", answer.stderr.strip())
    try:
        assert answer.returncode == 0, answer.stderr
        described = json.loads(answer.stdout)
        path = os.pathsep.join((described["bin"], os.environ["PATH"]))
        yield GridEngine({**os.environ, **described["env"], "PATH": path})
    finally:
        subprocess.run([*script, "stop", *directory], check=False)


@pytest.fixture(scope="session")
def clearml_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClearmlServer]:
    """A real server for this session. Tests share it: make projects and queues of your own."""
    server = ClearmlServer.start(tmp_path_factory.mktemp("clearml-server"))
    yield server
    server.stop()


@pytest.fixture
def start_clearml_server(tmp_path: Path) -> Iterator[Callable[..., ClearmlServer]]:
    """Starts servers of the test's own: ``start_clearml_server(data_dir?, *flags, port=0)``."""
    started = []

    def start(data_dir: Path | None = None, *flags: str, port: int = 0) -> ClearmlServer:
        started.append(ClearmlServer.start(data_dir or tmp_path / "server", *flags, port=port))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def peers() -> Path:
    """``bin`` of the environment with the real clearml and clearml-agent; tests that use it are skipped without it."""
    folder = Path(os.environ.get("HPC_AGENT_PEERS", Path(__file__).parent.parent / ".venv-peers")) / "bin"
    if not (folder / "clearml-task").exists():
        missing("peers", f"{folder} has no clearml-task; scripts/test makes that environment")
    return folder
