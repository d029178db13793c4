"""An ordinary Unix user, neither root nor Slurm's own user: from init to why, on real Slurm."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from capabilities import missing
from waiting import HANG_S, contains, equals, wait_until

pytestmark = [pytest.mark.root, pytest.mark.slurm]

SLURM_CLUSTER = Path(__file__).parents[2] / "scripts" / "slurm-cluster"
USER = "games"
"""Debian has it everywhere. Not "nobody": the accounting of 26.05 takes that for no user."""
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "sh", "-c", 'exec "$@"', "sh")
"""The program that setpriv itself starts is still looked up with root's capabilities."""
SCRIPT = """
import os, time
print("begun as", os.getuid(), flush=True)
time.sleep(600)
"""

SHORT = """
import os
print("runs as", os.getuid(), flush=True)
"""
MANY_TASKS = """
hpc {
    envs.build_on: compute
    slurm.array_size: 10
    queues {
        arrays { resources { num_cpus: 1, memory_gb: 0.5, time_limit: 5 } }
        pilots {
            mode: pilot
            resources { num_cpus: 1, memory_gb: 0.5, time_limit: 5 }
            pilot { resources { num_cpus: 2, memory_gb: 1, time_limit: 60 }, max_pilots: 1, idle_time: 3 }
        }
    }
}
"""
"""Nothing is staged, so that all tasks are due in the first pass."""


@dataclass
class User:
    """With a home, an account of Slurm, and an interpreter that they may run."""

    home: Path
    env: Mapping[str, str]
    python: Path

    def run(self, *argv: str, timeout: float = HANG_S) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*AS_USER, *argv],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def agent(self, *arguments: str, code: int = 0) -> str:
        done = self.run(str(self.python), "-m", "hpc_agent", *arguments)
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def asked(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.agent(*arguments, "--json", code=code))

    def task(self, *arguments: str) -> str:
        program = "from hpc_agent.cli.task import main; main()"
        done = self.run(str(self.python), "-c", program, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["id"])

    def owned(self, path: Path) -> None:
        path.chmod(0o600 if path.is_file() else 0o700)
        shutil.chown(path, USER, USER)


@pytest.fixture
def user(clearml_server: Any) -> Iterator[User]:
    with ExitStack() as stack:
        env = stack.enter_context(cluster_for_all())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="home-")))
        conf = home / "clearml.conf"
        conf.write_text(clearml_server.conf.read_text())
        env = {**env, "PATH": os.environ["PATH"], "HOME": str(home), "USER": USER, "LC_ALL": "C.UTF-8"}
        user = User(home, env, Path(sys.executable))
        user.owned(home)
        user.owned(conf)
        user.python = stack.enter_context(interpreter_for(user))
        try:
            yield user
        finally:
            user.run(str(user.python), "-m", "hpc_agent", "daemon", "--stop")


@contextmanager
def cluster_for_all() -> Iterator[Mapping[str, str]]:
    """A cluster of this test's own: the folders of pytest are their user's alone. Yields its variables."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        os.chmod(name, 0o755)
        control = [sys.executable, str(SLURM_CLUSTER)]
        folder = ["--dir", f"{name}/cluster"]
        started = subprocess.run([*control, "start", "--json", *folder], text=True, stdout=subprocess.PIPE, check=False)
        try:
            if started.returncode == 4:
                missing("slurm", "Slurm, munge or MariaDB is not installed")
            assert started.returncode == 0
            env: dict[str, str] = json.loads(started.stdout)["env"]
            add = ["sacctmgr", "-i", "add", "user", USER, "account=lab"]
            subprocess.run(add, env={**os.environ, **env}, check=True, capture_output=True)
            yield env
        finally:
            subprocess.run([*control, "stop", *folder], check=False, stdout=subprocess.DEVNULL)


@contextmanager
def interpreter_for(user: User) -> Iterator[Path]:
    """That of the tests may lie in root's home: then the machine's own, with the same packages."""
    if user.run(sys.executable, "-c", "import hpc_agent").returncode == 0:
        yield Path(sys.executable)
        return
    base = shutil.which(f"python{sys.version_info[0]}.{sys.version_info[1]}", path="/usr/bin:/usr/local/bin")
    if base is None or user.run(base, "-c", "import ssl").returncode:
        missing("root", f"{sys.executable} is for root alone, and the machine has no other one of its version")
    with tempfile.TemporaryDirectory(prefix="interpreter-") as name:
        venv = Path(name, "venv")
        make = [sys.executable, "-m", "virtualenv", "--quiet", "--no-download", f"--python={base}", str(venv)]
        subprocess.run(make, check=True, capture_output=True)
        os.chmod(name, 0o755)
        [packages] = venv.glob("lib/python*/site-packages")
        (packages / "tests.pth").write_text("".join(f"{path}\n" for path in sys.path if "site-packages" in path))
        source = Path(__file__).parents[2]
        with (packages / "tests.pth").open("a") as file:
            file.write(f"{source}\n")
        if user.run(str(venv / "bin" / "python"), "-c", "import hpc_agent").returncode:
            missing("root", f"only root may read {source}")
        yield venv / "bin" / "python"


def test_from_init_to_cancel(user: User) -> None:
    queue = "ordinary"
    user.agent("init", "--yes", "--queue", queue, "--partition", "main", "--root", str(user.home / "hpc"))
    found = user.asked("init", "--dry-run")
    assert [account["name"] for account in found["site"]["cluster"]["accounts"]] == ["lab"]
    assert not found["changed"]
    user.agent("daemon", "--queue", queue, "--create-queue", "--once")

    # The controller hears of a new user a moment after accounting.
    report = wait_until("a doctor without complaint", lambda: doctor(user), lambda report: report["ok"])
    lines = {(line["subject"], line["name"]): line for line in report["checks"]}
    assert {name for (_, name), line in lines.items() if line["status"] == "warning"} <= {
        "hpc.root shared",
        f"serves {queue}",
        "lingering",
        "hpc.root space",
        "scratch space",
    }
    assert lines["Partition main", "python"]["status"] == lines["Partition main", "files"]["status"] == "ok"
    assert " started on " in lines["Partition main", "job"]["message"]

    free = user.asked("free", "--gpus", "1", "--time", "5")
    assert {row["kind"] for row in free["gpus"]} >= {"a100"}
    assert "main" in {start["partition"] for start in free["starts"]}

    script = user.home / "train.py"
    script.write_text(SCRIPT)
    create = ["--project", "e2e", "--name", "theirs", "--script", str(script), "--queue", queue]
    task = user.task(*create, "--force-no-requirements", "--skip-task-init", "--num-gpus", "1", "--time-limit", "5")
    preview = user.asked("render", "--id", task, "--check")
    assert preview["check"]["accepted"] and preview["check"]["partition"] == "main"
    assert {request["name"]: request["origin"] for request in preview["requests"]}["num_gpus"] == (
        "the task: user property num_gpus"
    )

    user.agent("daemon", "--queue", queue, "--polling-interval", "0.5", "--detached")
    assert doctor(user, "--no-jobs")["ok"]
    uid = pwd.getpwnam(USER).pw_uid
    wait_until("its first line", lambda: user.agent("logs", task), contains(f"begun as {uid}"))
    [row] = [row for row in user.asked("jobs")["jobs"] if row["task"] == task]
    assert (row["state"], row["partition"], row["limit_seconds"]) == ("running", "main", 300)
    [explained] = user.asked("why", row["job"])
    assert (explained["task"], explained["verdict"]) == (task, "running")
    assert "was asked to end" in user.agent("cancel", task)
    wait_until("its end", lambda: user.asked("why", task)[0]["verdict"], equals("stopped"))
    wait_until(
        "its job to be listed as ended",
        lambda: [row["state"] for row in user.asked("jobs", "--ended", "1h")["jobs"] if row["task"] == task],
        equals(["stopped"]),
    )

    strangers = [path for path in (user.home / "hpc").rglob("*") if path.lstat().st_uid != uid]
    assert strangers == []
    secret = [path for path in (user.home / "hpc").rglob("*.conf") if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert secret == []


def test_arrays_and_pilots(user: User) -> None:
    user.agent("init", "--yes", "--partition", "main", "--root", str(user.home / "hpc"))
    with (user.home / "clearml.conf").open("a") as conf:
        conf.write(MANY_TASKS)
    script = user.home / "short.py"
    script.write_text(SHORT)
    queues = ("arrays", "pilots")
    user.agent("daemon", "--queue", *queues, "--create-queue", "--once")
    create = ["--project", "e2e", "--script", str(script), "--force-no-requirements", "--skip-task-init"]
    tasks = {
        queue: {user.task(*create, "--name", f"short {n}", "--queue", queue) for n in range(3)} for queue in queues
    }
    user.agent("daemon", "--queue", *queues, "--polling-interval", "0.5", "--detached")

    def jobs() -> dict[str, dict[str, Any]]:
        return {row["task"]: row for row in user.asked("jobs", "--ended", "1h")["jobs"]}

    everything = set().union(*tasks.values())
    states = dict.fromkeys(everything, "completed")
    rows = wait_until("all to end", jobs, lambda rows: {task: row["state"] for task, row in rows.items()} == states)
    uid = pwd.getpwnam(USER).pw_uid
    for task in everything:
        assert f"runs as {uid}" in user.agent("logs", task)
    elements = {rows[task]["job"].partition("_")[::2] for task in tasks["arrays"]}
    assert len({array for array, _ in elements}) == 1
    assert {index for _, index in elements} == {"0", "1", "2"}
    assert all(rows[task]["job"].startswith("p") for task in tasks["pilots"])
    assert [path for path in (user.home / "hpc").rglob("*") if path.lstat().st_uid != uid] == []


def doctor(user: User, *flags: str) -> dict[str, Any]:
    done = user.run(str(user.python), "-m", "hpc_agent", "doctor", "--json", *(flags or ("--jobs",)))
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    print([line for line in report["checks"] if line["status"] == "failed"])
    return report
