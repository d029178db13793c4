"""``hpc-agent doctor`` on a real Slurm and a real server: each line made to fail, and what it advises."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from silent_server import silent_server
from slurm_site import SlurmSite
from waiting import HANG_S, equals, wait_until

from hpc_agent.api.client import Client
from hpc_agent.config.load import load

CONF = """
include "{server}"
hpc {{
    root: "{root}"
    scratch_dir: "{scratch}"
    resources {{ num_cpus: 1, memory_gb: 1, time_limit: 5 }}
    queues {{ "{queue}" {{ resources {{ partition: "main,short" }} }} }}
}}
"""


WITHOUT_LOCKS = """
import ctypes, os, platform, struct, sys
FLOCK = {"x86_64": 73, "aarch64": 32}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, FLOCK), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a program under a filter (seccomp): number of the call; if flock: ENOSYS (38); else allowed."""


@dataclass
class Ward:
    """A user's account: a configuration, and the doctor on it."""

    env: Mapping[str, str]
    folder: Path
    queue: str

    @property
    def conf(self) -> Path:
        return self.folder / "clearml.conf"

    @property
    def root(self) -> Path:
        return self.folder / "hpc"

    def configure(self, lines: str) -> None:
        self.conf.write_text(f"{self.conf.read_text()}\n{lines}\n")

    def ask_for(self, resources: str) -> None:
        """Resources of the queue, over those that it has."""
        self.configure(f'hpc {{ queues {{ "{self.queue}" {{ resources {{ {resources} }} }} }} }}')

    def run(self, *flags: str, under: Sequence[str] = (), **environ: str) -> subprocess.CompletedProcess[str]:
        argv = [*under, sys.executable, "-m", "hpc_agent", "doctor", *flags]
        env = {**self.env, **environ}
        return subprocess.run(argv, env=env, text=True, capture_output=True, timeout=2 * HANG_S, check=False, input="")

    def doctor(self, *flags: str, under: Sequence[str] = (), **environ: str) -> Report:
        done = self.run("--json", *flags, under=under, **environ)
        assert done.returncode in (0, 1), done.stderr
        answer = json.loads(done.stdout)
        assert answer["ok"] == (done.returncode == 0)
        return Report(answer["checks"])


@dataclass
class Report:
    checks: list[dict[str, str]]

    def of(self, name: str, subject: str = "") -> dict[str, str]:
        """The last line of this name: where it failed half-way that is the failure."""
        return [line for line in self.checks if line["name"] == name and subject in ("", line["subject"])][-1]

    def status(self, name: str, subject: str = "") -> str:
        return self.of(name, subject)["status"]

    def failed(self) -> list[str]:
        return [line["name"] for line in self.checks if line["status"] == "failed"]

    def warned(self) -> list[str]:
        return [line["name"] for line in self.checks if line["status"] == "warning"]


@pytest.fixture
def ward(clearml_server: Any, slurm_cluster: Any, tmp_path: Path) -> Ward:
    queue = f"q-{uuid.uuid4().hex[:8]}"
    account = Ward({**slurm_cluster.env, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}, tmp_path, queue)
    account.conf.write_text(
        CONF.format(server=clearml_server.conf, root=account.root, scratch=tmp_path / "scratch", queue=queue)
    )
    Client(load(account.conf, {}).settings.api).queues.resolve(queue, create=True)
    return account


# ---------------------------------------------------------------- all is well


def test_a_site_that_works_passes_with_a_job_on_each_partition(ward: Ward, slurm_cluster: Any) -> None:
    report = ward.doctor("--jobs")
    assert report.failed() == [], report.checks
    # No daemon was started.
    assert report.warned() == [f"serves {ward.queue}"]
    assert {line["subject"] for line in report.checks} == {
        *("Server", "Scheduler", "Folders", "This machine", "Daemon", "Partition main", "Partition short"),
    }
    for partition in ("Partition main", "Partition short"):
        names = [line["name"] for line in report.checks if line["subject"] == partition]
        assert names == [*("job", "files", "python", "server", "credentials", "clock", "scratch", "scratch space")]
    assert re.search(r"is seen on the node, .* within [0-9.]+ s", report.of("files")["message"])
    assert f"submit {ward.queue}" in [line["name"] for line in report.checks]
    # Nothing is left of it.
    wait_until("no job left", lambda: slurm_cluster.run("squeue", "-h", "--name=hpc-agent-doctor"), equals(""))
    assert list((ward.root / "doctor").iterdir()) == []
    assert list(ward.root.rglob(".doctor-*")) == []


def test_without_being_asked_it_submits_nothing(ward: Ward, slurm_cluster: Any) -> None:
    report = ward.doctor()
    assert report.status("nodes") == "skipped" and "--jobs" in report.of("nodes")["remedy"]
    assert not (ward.root / "doctor").exists()


# ---------------------------------------------------------------- the server


def test_a_server_that_is_down_costs_the_lines_that_need_it(
    ward: Ward, start_clearml_server: Callable[..., Any]
) -> None:
    server = start_clearml_server()
    ward.configure(f'include "{server.conf}"')
    server.kill()
    report = ward.doctor()
    assert report.failed() == ["server"]
    assert "refused" in report.of("server")["message"].lower()
    assert "hpc-agent server" in report.of("server")["remedy"]
    for name in ("credentials", "clock", f"queue {ward.queue}"):
        assert (report.status(name), report.of(name)["message"]) == ("skipped", "the server does not answer")
    assert report.status("scheduler") == "ok"


def test_a_server_that_says_nothing_holds_up_nothing_else(ward: Ward) -> None:
    with silent_server() as address:
        ward.configure(f'api.api_server: "http://{address}"')
        report = ward.doctor()
    assert report.failed() == ["server"]
    assert report.status(f"submit {ward.queue}") == "ok"


def test_wrong_keys_are_not_a_server_that_is_down(ward: Ward) -> None:
    ward.configure('api.credentials { access_key: "WRONG", secret_key: "WRONG" }')
    report = ward.doctor()
    assert report.failed() == ["credentials"]
    assert "check the access key and secret" in report.of("credentials")["message"]
    assert (report.status("server"), report.status("clock")) == ("ok", "ok")
    assert report.status(f"queue {ward.queue}") == "skipped"


@pytest.mark.parametrize(
    ("seconds", "status", "words"), [(3600, "failed", "ahead of"), (-20, "warning", "behind"), (0, "ok", "in step")]
)
def test_a_wrong_clock_is_reported(ward: Ward, clearml_server: Any, seconds: int, status: str, words: str) -> None:
    with other_clock(clearml_server.url, seconds) as url:
        ward.configure(f'api.api_server: "{url}"')
        line = ward.doctor().of("clock")
    assert line["status"] == status and words in line["message"]
    if seconds:
        [reported] = map(int, re.findall(r"[0-9]+", line["message"]))
        assert abs(reported - abs(seconds)) < 3
        assert "chronyc" in line["remedy"]


@contextmanager
def other_clock(url: str, ahead: int) -> Iterator[str]:
    """A proxy before the server whose clock is ``ahead`` seconds ahead."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
            answer = requests.post(url + self.path, data=body, headers=headers, timeout=30)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def date_time_string(self, timestamp: float | None = None) -> str:
            from hpc_agent.clock import SYSTEM

            return super().date_time_string(SYSTEM.now().timestamp() + ahead)

        def log_message(self, *_: Any) -> None:
            """Nothing: a test's output is for its failures."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_queue_that_is_not_there_has_the_command_that_makes_it(ward: Ward) -> None:
    report = ward.doctor("--queue", "nowhere")
    assert report.failed() == ["queue nowhere"]
    assert report.of("queue nowhere")["remedy"] == "hpc-agent daemon --queue nowhere --create-queue"


def test_without_a_server_in_the_configuration_init_is_named(ward: Ward) -> None:
    ward.conf.write_text(f'hpc.root: "{ward.root}"')
    report = ward.doctor()
    assert report.failed() == ["server"]
    assert report.of("server")["remedy"].startswith("hpc-agent init")


# ---------------------------------------------------------------- the scheduler


@pytest.mark.parametrize(
    ("resources", "words", "remedy"),
    [
        ("account: nobody", "Invalid account", "sacctmgr show user"),
        ("partition: nowhere", "invalid partition", "sinfo"),
        ("partition: short, time_limit: 60", "time limit is invalid", "hpc-agent free"),
        ("num_gpus: 9", "node configuration is not available", "hpc-agent free --all"),
    ],
)
def test_what_slurm_would_refuse_is_reported_with_where_to_look(
    ward: Ward, resources: str, words: str, remedy: str
) -> None:
    ward.ask_for(resources)
    report = ward.doctor()
    assert report.failed() == [f"submit {ward.queue}"]
    assert words in report.of(f"submit {ward.queue}")["message"]
    assert report.of(f"submit {ward.queue}")["remedy"].startswith(remedy)


def test_a_controller_that_is_away_costs_the_lines_that_need_it(ward: Ward) -> None:
    (ward.folder / "slurm.conf").write_text("ClusterName=away\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=9\n")
    ward.configure("hpc.slurm.command_timeout: 2")
    report = ward.doctor(SLURM_CONF=str(ward.folder / "slurm.conf"))
    assert report.failed() == ["scheduler"]
    assert report.status(f"submit {ward.queue}") == report.status("limits") == "skipped"


def test_limits_that_are_used_up_are_reported(ward: Ward, slurm_cluster: Any, tmp_path: Path) -> None:
    site = SlurmSite(slurm_cluster, tmp_path)
    try:
        site.wait_for_start(site.submit("sleep 600", "--qos=single", "--mem=1G", "--time=5"))
        ward.configure("hpc.max_jobs: 1")
        ward.ask_for("qos: single, account: lab")
        report = ward.doctor()
    finally:
        slurm_cluster.run("scancel", *site.jobs)
    message = report.of("limits")["message"]
    assert report.status("limits") == "warning"
    assert "1 jobs of yours, 1 of them running" in message
    assert "QOS single MaxSubmitPU 1" in message and "hpc.max_jobs is nearly" in message


# ---------------------------------------------------------------- the nodes


@contextmanager
def no_node_takes_jobs(cluster: Any) -> Iterator[None]:
    cluster.run("scontrol", "update", "nodename=n[1-3]", "state=drain", "reason=test")
    try:
        yield
    finally:
        cluster.run("scontrol", "update", "nodename=n[1-3]", "state=resume")
        # Until they have answered again they are "idle*", and sbatch is refused.
        states = partial(cluster.run, "sinfo", "-h", "-N", "-o", "%T")
        wait_until("the nodes to take jobs", states, lambda found: {*found.split()} <= {"idle", "mixed", "allocated"})


def test_a_job_that_waits_too_long_is_cancelled_and_its_reason_reported(ward: Ward, slurm_cluster: Any) -> None:
    with no_node_takes_jobs(slurm_cluster):
        ward.ask_for("partition: main")
        report = ward.doctor("--jobs", "--wait", "3")
        left = wait_until(
            "no job left", lambda: slurm_cluster.run("squeue", "-h", "--name=hpc-agent-doctor"), equals("")
        )
    line = report.of("job", "Partition main")
    assert line["status"] == "warning" and left == ""
    assert re.match(r"job [0-9]+ did not start within 3 s \(.+\) and was cancelled", line["message"])
    assert "--wait 15" in line["remedy"]


def names_below(pid: int) -> set[str]:
    """Of the processes that it has started; those that end meanwhile are left out."""
    names = set()
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            names.add(process.name())
    return names


def test_ctrl_c_cancels_the_jobs(ward: Ward, slurm_cluster: Any) -> None:
    def listed() -> str:
        found: str = slurm_cluster.run("squeue", "-h", "--name=hpc-agent-doctor")
        return found

    with no_node_takes_jobs(slurm_cluster):
        argv = [sys.executable, "-m", "hpc_agent", "doctor", "--jobs", "--json"]
        with subprocess.Popen(argv, env=ward.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
            wait_until("both jobs", lambda: len(listed().splitlines()), equals(2))
            # The id of a job whose sbatch is still there is not known yet.
            wait_until("their sbatch to end", lambda: "sbatch" not in names_below(child.pid))
            child.send_signal(signal.SIGINT)
            assert child.wait(HANG_S) == 1
        assert listed() == ""
    assert list((ward.root / "doctor").iterdir()) == []


def test_a_program_that_is_not_on_the_node_is_reported(ward: Ward) -> None:
    ward.configure('hpc.agent_command: ["/nowhere/hpc-agent"]')
    ward.ask_for("partition: main")
    report = ward.doctor("--jobs")
    assert report.failed() == ["python"]
    assert report.status("job") == "ok"
    line = report.of("python")
    assert "/nowhere/hpc-agent" in line["message"] and "No such file" in line["message"]
    assert "hpc.agent_command" in line["remedy"]


def test_nodes_that_build_are_asked_for_package_index_and_repositories(ward: Ward) -> None:
    good = ward.folder / "good.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(good)], check=True)
    ward.configure("hpc.envs.build_on: job")
    ward.ask_for("partition: main")
    report = ward.doctor("--jobs", "--repository", str(good), "--repository", str(ward.folder / "nowhere.git"))
    on_node = [line for line in report.checks if line["subject"] == "Partition main"]
    assert [line["status"] for line in on_node if line["name"] == "git access"] == ["ok", "failed"]
    assert [line["message"][:7] for line in on_node if line["name"] == "package index"] == ["answers"]
    # Nothing is installed here.
    assert "package index" not in [line["name"] for line in report.checks if line["subject"] == "This machine"]


@pytest.mark.root
def test_a_root_that_nodes_do_not_see_is_reported(ward: Ward) -> None:
    """The doctor alone sees what is mounted at hpc.root, as with a folder of the login node."""
    mount = f'mount -t tmpfs -o mode=700 none "{ward.root}" && exec "$@"'
    ward.root.mkdir()
    ward.ask_for("partition: main")
    report = ward.doctor("--jobs", under=("unshare", "--mount", "sh", "-c", mount, "sh"))
    assert report.failed() == ["job"], report.checks
    assert "no file of it is seen" in report.of("job")["message"] or "before its script" in report.of("job")["message"]
    assert "hpc.root" in report.of("job")["remedy"]
    assert "hpc.root shared" not in [line["name"] for line in report.checks]


# ---------------------------------------------------------------- folders


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "words", "remedy"),
    [
        ("ro", "Read-only file system", "name another folder"),
        ("size=16k,mode=700", "No space left on device", "df -h"),
    ],
)
def test_a_folder_that_takes_no_files_is_reported(ward: Ward, options: str, words: str, remedy: str) -> None:
    ward.root.mkdir()
    mount = f'mount -t tmpfs -o {options} none "{ward.root}" && exec "$@"'
    report = ward.doctor(under=("unshare", "--mount", "sh", "-c", mount, "sh"))
    line = report.of("hpc.root")
    assert line["status"] == "failed" and words in line["message"]
    assert line["remedy"].startswith(remedy)
    assert report.status("server") == report.status("scheduler") == "ok"


@pytest.mark.root
def test_a_disk_that_is_nearly_full_is_reported(ward: Ward) -> None:
    ward.root.mkdir()
    mount = f'mount -t tmpfs -o size=200m,mode=700 none "{ward.root}" && exec "$@"'
    report = ward.doctor(under=("unshare", "--mount", "sh", "-c", mount, "sh"))
    assert report.status("hpc.root") == "ok"
    assert report.of("hpc.root space")["message"] == "0.2 GiB free"
    assert report.status("hpc.root space") == "failed"


def test_a_root_without_locks_is_reported(ward: Ward, tmp_path: Path) -> None:
    """As on Lustre without ``-o flock``: the system call is answered with ENOSYS, by a filter in the kernel."""
    program = tmp_path / "without_locks.py"
    program.write_text(WITHOUT_LOCKS)
    report = ward.doctor(under=(sys.executable, str(program)))
    line = report.of("locks")
    assert line["status"] == "warning" and "has no locks (Function not implemented)" in line["message"]
    assert "-o flock" in line["remedy"]
    assert list(ward.root.glob(".doctor-*")) == []


@pytest.mark.parametrize("name", ["hpc.root access", "keys"])
def test_the_command_that_is_printed_fixes_it(ward: Ward, name: str) -> None:
    ward.root.mkdir()
    ward.root.chmod(0o777)
    ward.configure('agent.git_pass: "a-token"')
    ward.conf.chmod(0o644)
    line = ward.doctor().of(name)
    assert line["status"] == ("failed" if name == "hpc.root access" else "warning")
    command = re.search(r"chmod [^`]+", line["remedy"])
    assert command
    subprocess.run(shlex.split(command[0]), check=True)
    assert ward.doctor().status(name) == "ok"


# ---------------------------------------------------------------- this machine


def test_limits_of_processes_are_reported(ward: Ward) -> None:
    report = ward.doctor(under=("prlimit", "--cpu=3600", "--nofile=200:4000"))
    lines = [line for line in report.checks if line["name"] == "process limits"]
    assert [line["status"] for line in lines] == ["warning", "warning", "ok"]
    assert "60 minutes of CPU time" in lines[0]["message"] and "--service cron" in lines[0]["remedy"]
    assert (lines[1]["message"], lines[1]["remedy"]) == ("only 200 open files are allowed", "ulimit -Sn 4000")


def test_a_package_index_that_is_away_is_reported(ward: Ward) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    report = ward.doctor(UV_DEFAULT_INDEX=f"http://127.0.0.1:{port}/simple", UV_INDEX_URL=f"http://127.0.0.1:{port}/s")
    assert report.failed() == ["package index"]
    assert "extra_index_url" in report.of("package index")["remedy"]


def test_git_is_tried_with_the_repositories_that_are_named(ward: Ward) -> None:
    good = ward.folder / "good.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(good)], check=True)
    report = ward.doctor("--repository", str(good), "--repository", str(ward.folder / "nowhere.git"))
    lines = [line for line in report.checks if line["name"] == "git access"]
    assert [line["status"] for line in lines] == ["ok", "failed"]
    assert "does not appear to be a git repository" in lines[1]["message"] or "does not exist" in lines[1]["message"]
    assert f"git ls-remote {ward.folder}/nowhere.git" in lines[1]["remedy"]


# ---------------------------------------------------------------- the daemon


def test_the_daemon_of_each_queue_is_looked_for(ward: Ward) -> None:
    name = f"serves {ward.queue}"
    missing = ward.doctor().of(name)
    assert (missing["status"], missing["message"]) == (
        "warning",
        "no daemon that shares hpc.root runs for it: its tasks wait",
    )
    # What is advised, with which it is then served.
    command = shlex.split(missing["remedy"], comments=True)
    assert command[0] == "hpc-agent"
    started = subprocess.run([sys.executable, "-m", "hpc_agent", *command[1:]], env=ward.env, capture_output=True)
    assert started.returncode == 0, started.stderr
    [record] = (ward.root / "daemons").glob("*.json")
    daemon = json.loads(record.read_text())
    try:
        served = ward.doctor().of(name)
        assert served["status"] == "ok"
        assert re.search(rf" has been running since .*, process {daemon['process']['pid']}$", served["message"])
        assert ward.doctor("--queue", "nowhere").status("serves nowhere") == "warning"
    finally:
        os.kill(daemon["process"]["pid"], signal.SIGKILL)
    wait_until("its death to be seen", lambda: ward.doctor().status(name), equals("warning"))
    # As the same record reads on another login node, its heartbeat of long ago.
    record.write_text(json.dumps({**daemon, "host": "login7"}))
    [beat] = (ward.root / "daemons").glob("*.beat")
    os.utime(beat)
    assert ward.doctor().of(name)["message"].startswith(f"{daemon['worker']} runs on login7 since ")
    os.utime(beat, (0, 0))
    line = ward.doctor().of(name)
    assert line["status"] == "warning" and "was started on login7, and its last heartbeat was" in line["message"]


# ---------------------------------------------------------------- the command


def test_wrong_use_is_exit_code_2(ward: Ward) -> None:
    assert ward.run("--wait", "soon").returncode == 2
    ward.configure("hpc.scheduler: local")
    done = ward.run("--jobs")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there are no nodes to look at" in done.stderr
    ward.configure("hpc.no_such_key: 1")
    assert ward.run().returncode == 2


def test_text_has_a_summary_and_fits_a_narrow_terminal(ward: Ward) -> None:
    done = ward.run("--queue", "nowhere", COLUMNS="60")
    assert done.returncode == 1
    texts = [line for line in done.stdout.splitlines() if "→" not in line]
    assert max(map(len, texts)) <= 60
    assert "\x1b" not in done.stdout
    assert "  FAIL  queue nowhere" in done.stdout
    assert re.search(r"^[0-9]+ ok, 1 failed", texts[-1])


def test_a_terminal_is_asked_before_jobs_are_submitted_and_sees_progress(ward: Ward) -> None:
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "hpc_agent", "doctor"],
        env={**ward.env, "TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    os.write(master, b"n\n")
    seen = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    assert child.wait(HANG_S) == 0, seen.decode()
    os.close(master)
    text = seen.decode()
    assert "Check a node too, with a job of some seconds on partition main, partition short? [y/N]" in text
    assert "checks done, waiting for" in text
    assert "\x1b[" in text
    assert not (ward.root / "doctor").exists()
