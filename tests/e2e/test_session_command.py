"""``hpc-agent session``: a job of a real Slurm that serves a real sshd, and the real ssh that connects to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from e2e_site import Site
from openssh_server import openssh_server
from ports import free_port
from waiting import contains, equals, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers, pytest.mark.sshd]


@pytest.fixture
def key(site: Site) -> Path:
    """A private key; the public one has its name and .pub."""
    path = site.folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def session(site: Site, key: Path, *flags: str, sshd: Path | None = None) -> dict[str, Any]:
    """What ``hpc-agent session --json`` prints once the job serves."""
    server = str(sshd or openssh_server(site.folder))
    answer = site.agent(
        *("session", "--queue", site.queue, "--public-key", f"{key}.pub", "--sshd", server, "--json", *flags),
        timeout=600,
    )
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def from_here(found: dict[str, Any], key: Path) -> list[str]:
    """The first command that was printed, with this key alone."""
    program, *rest = found["connect"]["here"]
    return [program, "-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", *rest]


def ssh(site: Site, found: dict[str, Any], key: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "HOME": str(site.folder)}
    return subprocess.run([*from_here(found, key), *command], env=environ, text=True, capture_output=True, timeout=60)


def test_a_session_is_a_shell_in_a_job_until_it_is_cancelled(site: Site, key: Path) -> None:
    site.daemon()
    found = session(site, key, "--num-gpus", "2", "--time-limit", "10")
    task = TaskId(found["task"])
    [job] = site.jobs(task)
    shell = ssh(site, found, key, "echo $SLURM_JOB_ID $CUDA_VISIBLE_DEVICES; test -z $CLEARML_TASK_ID && echo own")
    assert shell.returncode == 0, shell.stderr
    assert shell.stdout.split() == [job, "0,1", "own"]
    stranger = site.folder / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    assert "Permission denied (publickey)" in ssh(site, found, stranger, "id").stderr
    assert found["connect"]["elsewhere"][:2] == ["ssh", "-J"]
    assert site.agent("cancel", task).returncode == 0
    assert site.wait_for_end(task) is TaskStatus.STOPPED
    wait_until("the server to go", lambda: ssh(site, found, key, "id").returncode, equals(255))


@pytest.fixture
def own_machine(site: Site, key: Path) -> Iterator[Path]:
    """ssh's configuration on the user's own machine, which knows ``login.example`` and leads to a real sshd there."""
    host_key, log = site.folder / "login_key", site.folder / "login.log"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    port = free_port()
    server = site.folder / "login_sshd"
    server.write_text(
        f"HostKey {host_key}\nAuthorizedKeysFile {key}.pub\nListenAddress 127.0.0.1:{port}\nPidFile none\n"
        "UsePAM no\nStrictModes no\nPasswordAuthentication no\n"
    )
    here = site.folder / "ssh_config"
    here.write_text(
        f"Host login.example\n HostName 127.0.0.1\n Port {port}\n"
        f"Host *\n IdentityFile {key}\n IdentitiesOnly yes\n BatchMode yes\n StrictHostKeyChecking accept-new\n"
        f" UserKnownHostsFile {site.folder / 'own_known_hosts'}\n"
    )
    with log.open("w") as output:
        running = subprocess.Popen(
            [str(openssh_server(site.folder)), "-D", "-e", "-f", str(server)], stderr=output, stdin=subprocess.DEVNULL
        )
        wait_until("the login node's sshd", log.read_text, contains("Server listening"))
        yield here
        running.terminate()
        running.wait(30)


def test_the_second_command_connects_through_the_login_node(site: Site, key: Path, own_machine: Path) -> None:
    site.daemon()
    found = session(site, key, "--login", "login.example", "--time-limit", "10")
    program, *rest = found["connect"]["elsewhere"]
    answer = subprocess.run(
        [program, "-F", str(own_machine), *rest, "echo $SLURM_JOB_ID"], text=True, capture_output=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == site.jobs(TaskId(found["task"]))
    # What the command has printed is what ssh asks its user to compare.
    known = subprocess.run(
        ["ssh-keygen", "-lf", str(site.folder / "own_known_hosts")], text=True, capture_output=True, check=True
    )
    assert f"{found['fingerprint']} [{found['host']}]:{found['port']} " in known.stdout
    assert site.agent("cancel", found["task"]).returncode == 0


def test_jupyterlab_is_reached_through_ssh_with_its_token(site: Site, key: Path) -> None:
    site.daemon()
    found = session(site, key, "--jupyter", "--time-limit", "10")
    link = urlsplit(found["connect"]["jupyter"])
    port = free_port()
    argv = [*from_here(found, key), "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"{port}:127.0.0.1:{link.port}"]
    tunnel = subprocess.Popen(argv)

    def status(token: str) -> int:
        assert tunnel.poll() is None
        try:
            return requests.get(f"http://127.0.0.1:{port}/api/contents?{token}", timeout=60).status_code
        except requests.ConnectionError:
            return 0

    try:
        wait_until("the tunnel", lambda: status(link.query), equals(200))
        assert status("") == 403
        assert link.query.removeprefix("token=") not in site.console(TaskId(found["task"]))
        assert site.agent("cancel", found["task"]).returncode == 0
        assert site.wait_for_end(TaskId(found["task"])) is TaskStatus.STOPPED
    finally:
        tunnel.terminate()
        tunnel.wait()


USED_PORT = """\
#!{python}
# On its first start a connection has sshd's port, on IPv4.
import os, pathlib, socket, sys, time
if not (seen := pathlib.Path("{folder}/started")).exists():
    port = int(sys.argv[sys.argv.index("-p") + 1])
    seen.write_text(str(port))
    server, client = socket.socket(), socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    client.bind(("127.0.0.1", port))
    client.connect(server.getsockname())
    if os.fork() == 0:  # sshd closes what it inherits
        time.sleep(30)
        os._exit(0)
os.execv("{sshd}", ["{sshd}", *sys.argv[1:]])
"""


def test_a_port_that_a_connection_has_is_not_the_sessions(site: Site, key: Path) -> None:
    site.daemon()
    sshd = site.folder / "sshd_meets_a_used_port"
    sshd.write_text(USED_PORT.format(python=sys.executable, folder=site.folder, sshd=openssh_server(site.folder)))
    sshd.chmod(0o755)
    found = session(site, key, "--time-limit", "10", sshd=sshd)
    assert str(found["port"]) != (site.folder / "started").read_text()
    assert ssh(site, found, key, "id").returncode == 0
    assert site.agent("cancel", found["task"]).returncode == 0


def test_a_session_whose_sshd_dies_ends_with_the_reason(site: Site, key: Path) -> None:
    site.daemon()
    found = session(site, key, "--time-limit", "10")
    [sshd] = [each for each in psutil.process_iter() if listens_on(each, found["port"])]
    sshd.kill()
    assert site.wait_for_end(TaskId(found["task"])) is TaskStatus.FAILED
    assert "a server ended: " in site.console(TaskId(found["task"]))


def listens_on(process: psutil.Process, port: int) -> bool:
    with suppress(psutil.Error):
        return any(each.laddr.port == port and each.status == "LISTEN" for each in process.net_connections("inet"))
    return False


def test_a_session_that_cannot_be_served_ends_with_the_reason(site: Site, key: Path) -> None:
    site.daemon()
    answer = site.agent(
        "session", "--queue", site.queue, "--public-key", f"{key}.pub", "--sshd", "/nowhere/sshd", timeout=600
    )
    assert answer.returncode == 1
    assert "ended before it was served: the session cannot be served on " in answer.stderr
    assert ": there is no program /nowhere/sshd; `hpc-agent logs " in answer.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--queue", "no-such-queue"], "no-such-queue"),
        (["--num-gpus", "many"], "num_gpus"),
        (["--public-key", "nowhere.pub"], "the public key nowhere.pub does not exist"),
        (["--public-key", "/dev/null"], "the public key /dev/null is not a file"),
        (["--packages", "torch=2"], "--packages: 'torch=2' is not a requirement: "),
    ],
)
def test_wrong_input_is_a_sentence_and_makes_no_task(site: Site, key: Path, flags: list[str], sentence: str) -> None:
    answer = site.agent("session", "--queue", site.queue, "--public-key", f"{key}.pub", *flags)
    assert answer.returncode == 2, answer.stderr
    assert sentence in answer.stderr
    assert not site.client.queues.get_many([site.queue_id])[0].entries


def test_a_private_key_is_not_let_out(site: Site, key: Path) -> None:
    answer = site.agent("session", "--queue", site.queue, "--public-key", str(key))
    assert answer.returncode == 2
    assert "is not a public key: expected one line such as ssh-ed25519" in answer.stderr


def test_without_a_key_it_says_how_to_make_one(site: Site) -> None:
    answer = site.agent("session", "--queue", site.queue, HOME=str(site.folder))
    assert answer.returncode == 2
    assert "make one with `ssh-keygen -t ed25519`" in answer.stderr
