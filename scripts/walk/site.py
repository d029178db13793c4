"""Site of the walk: a real Slurm, the embedded server, and an ordinary user who has an account on both."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
AGENT = [sys.executable, "-m", "hpc_agent"]
SLURM = [sys.executable, str(ROOT / "scripts" / "slurm-cluster")]


@dataclass(frozen=True)
class WalkSite:
    """``conf``: the user's key pair, as ``hpc-agent server user add`` wrote it for the user alone."""

    user: str
    home: Path
    folder: Path
    slurm_conf: str
    api_server: str
    access_key: str
    secret_key: str

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.user).pw_uid

    @property
    def environ(self) -> dict[str, str]:
        """What the user has after a login on this cluster."""
        return {
            "HOME": str(self.home),
            "USER": self.user,
            "LOGNAME": self.user,
            "SHELL": "/bin/bash",
            "PATH": f"{self.home}/hpc-agent-env/bin:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "SLURM_CONF": self.slurm_conf,
        }


@contextmanager
def walk_site(folder: Path, user: str) -> Iterator[WalkSite]:
    """Everything is taken away again when the block ends, the user too."""
    folder.chmod(0o755)  # Slurm's configuration and munge's socket are in it.
    with _account(user) as home, _slurm(folder / "slurm", user) as conf, _server(folder / "server") as url:
        try:
            yield _with_credentials(folder, user, home, conf, url)
        finally:
            uid = pwd.getpwnam(user).pw_uid
            end_processes(uid)
            # hpc.scratch_dir, where nothing is set.
            shutil.rmtree(Path(tempfile.gettempdir()) / f"hpc-agent-{uid}", ignore_errors=True)


@contextmanager
def _account(user: str) -> Iterator[Path]:
    with suppress(KeyError):
        sys.exit(f"error: there is a user {pwd.getpwnam(user).pw_name} already: choose another name with --user")
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", "--user-group", user], check=True)
    home = Path(pwd.getpwnam(user).pw_dir)
    # Debian lets all users read a new home.
    home.chmod(0o700)
    try:
        _copy_checkout(home / "hpc-agent", user)
        yield home
    finally:
        subprocess.run(["userdel", "--remove", user], check=False, capture_output=True)


def _copy_checkout(folder: Path, user: str) -> None:
    """The checkout as it is now, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["chown", "-R", f"{user}:", str(folder)], check=True)


@contextmanager
def _slurm(folder: Path, user: str) -> Iterator[str]:
    done = subprocess.run([*SLURM, "start", "--dir", str(folder), "--json"], check=True, capture_output=True, text=True)
    conf = str(json.loads(done.stdout)["env"]["SLURM_CONF"])
    try:
        add = ["sacctmgr", "-i", "add", "user", user, "account=lab", "defaultaccount=lab", "qos=normal,single"]
        subprocess.run(
            [*add, "defaultqos=normal"], env={**os.environ, "SLURM_CONF": conf}, check=True, capture_output=True
        )
        yield conf
    finally:
        subprocess.run([*SLURM, "stop", "--dir", str(folder)], check=True, capture_output=True)


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """The server of the lab; it runs as another user than the one who walks."""
    folder.mkdir()
    argv = [*AGENT, "server", "--port", "0", "--data-dir", str(folder), "--conf", str(folder / "clearml.conf")]
    with (folder / "server.log").open("wb") as log:
        child = subprocess.Popen(argv, env=_own_environ(), stdout=subprocess.PIPE, stderr=log, text=True)
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        if not line.startswith("Listening on "):
            sys.exit(f"error: the server did not start: {(folder / 'server.log').read_text(encoding='utf-8')}")
        yield line.split()[-1]
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _with_credentials(folder: Path, user: str, home: Path, slurm_conf: str, url: str) -> WalkSite:
    from hpc_agent.config.load import load

    conf = folder / "server" / f"{user}.conf"
    subprocess.run(
        [*AGENT, "server", "user", "add", user, "--conf", str(conf)],
        env={**_own_environ(), "CLEARML_CONFIG_FILE": str(folder / "server" / "clearml.conf")},
        check=True,
        capture_output=True,
    )
    api = load(conf, {}).settings.api
    return WalkSite(user, home, folder, slurm_conf, url, api.access_key, api.secret_key.reveal())


def _own_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "TRAINS_"))}


def end_processes(uid: int) -> None:
    """End what the user of the walk has left running: the user was made for it, so that all of it is ours."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _owner(path) == uid]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + 10
        while any(_owner(Path(f"/proc/{pid}")) == uid for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.1)


def _owner(process: Path) -> int | None:
    try:
        return process.stat().st_uid
    except OSError:
        return None
