"""Starting and stopping the daemons of a cluster, each awaited until it answers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from slurm_cluster.configuration import check_machine, write_configuration, write_files
from slurm_cluster.errors import ClusterError
from slurm_cluster.layout import ACCOUNT, CLUSTER, NODES, SMALL_LOG, UP_STATES, Cluster, step_above
from slurm_cluster.progress import note, step
from slurm_cluster.releases import mariadb_library

_BROKEN_LIBRARY = "set execeeds maxmimum allowed number of columns"
"""What slurmdbd says where ``releases.mariadb_library`` helps; the spelling is the library's."""
_PORT_TAKEN = "Address already in use"
"""What a daemon of Slurm says whose port another program took between its choice and the daemon's start."""


def start(cluster: Cluster) -> None:
    """Bring up whatever is not up.

    Raises:
        ClusterError: what is missing or went wrong.
    """
    check_machine(cluster)
    runs = any(cluster.pid(part) for part in cluster.parts())
    try:
        _start(cluster)
    except ClusterError as error:
        if runs or _PORT_TAKEN not in str(error):
            raise
        note("Another program took a port meanwhile: once more, with other ports")
        stop(cluster, [])
        _start(cluster)


def _start(cluster: Cluster) -> None:
    ports = write_configuration(cluster)
    munge = cluster.dir / "munge" / "socket"
    start_part(cluster, "munged", lambda: accepts(munge))
    if not cluster.without_accounting:
        try:
            start_accounting(cluster, ports)
        except ClusterError as error:
            if cluster.pid("slurmctld") or _PORT_TAKEN in str(error):
                raise  # slurmctld writes to the slurmdbd that was there when it started.
            go_on_without_accounting(cluster, ports, error)
    start_part(cluster, "slurmctld", partial(answers, cluster, ports["slurmctld"], "scontrol", "ping"))
    for node in NODES:
        start_part(cluster, node, partial(accepts, ports[node]))
    wait_for_nodes(cluster)


def start_accounting(cluster: Cluster, ports: dict[str, int]) -> None:
    """MariaDB, slurmdbd, and their table of users.

    Raises:
        ClusterError: one of them does not start.
    """
    database = cluster.dir / "mariadb" / "socket"
    if not (cluster.dir / "mariadb" / "data" / "mysql").exists():
        with step("mariadbd: creating the database"):
            data = f"--datadir={cluster.dir}/mariadb/data"
            cluster.checked(
                *("mariadb-install-db", "--no-defaults", f"--user={cluster.user}", data),
                *("--skip-test-db", SMALL_LOG, f"--auth-root-socket-user={cluster.user}"),
                # Clusters that start at once would meet in /tmp ("Unknown table 'mysql.tmp_user_sys'").
                f"--tmpdir={cluster.dir}/mariadb",
            )
    start_part(cluster, "mariadbd", lambda: accepts(database))
    ready = partial(answers, cluster, ports["slurmdbd"], "sacctmgr", "-nP", "show", "cluster")
    try:
        start_part(cluster, "slurmdbd", ready)
    except ClusterError:
        if _BROKEN_LIBRARY not in _logs(cluster, "slurmdbd", lines=200):
            raise
        cluster.preload = mariadb_library()
        start_part(cluster, "slurmdbd", ready)
    register_accounts(cluster)


def go_on_without_accounting(cluster: Cluster, ports: dict[str, int], error: ClusterError) -> None:
    """The cluster is worth having without sacct."""
    stop(cluster, ["slurmdbd", "mariadbd"])
    cluster.without_accounting = str(error).partition("\n")[0]
    note(f"{error}\nThis cluster runs without accounting: sacct and sacctmgr will not answer.")
    write_files(cluster, ports)


def start_part(cluster: Cluster, name: str, ready: Callable[[], bool], seconds: float = 60) -> None:
    """Start a daemon unless it runs, and wait until it is ready.

    Raises:
        ClusterError: it ended, or was not ready in time; with the end of its log.
    """
    runs = cluster.pid(name)
    with step(f"{name}: {'runs already' if runs else 'starting'}"):
        pid = runs or _spawn(cluster, name)
        if not wait_until(lambda: not is_alive(pid) or ready(), seconds) or not is_alive(pid):
            how = f"is not ready after {seconds:g} s" if is_alive(pid) else "ended at once"
            raise ClusterError(f"{name} {how}{_logs(cluster, name)}")


def _spawn(cluster: Cluster, name: str) -> int:
    with (cluster.dir / "log" / f"{name}.out").open("wb") as sink:
        child = subprocess.Popen(
            cluster.parts()[name],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**cluster.env, **cluster.preloaded(name)},
            cwd=cluster.dir,
            start_new_session=True,
        )
    cluster.mark(name).write_text(str(child.pid))
    return child.pid


def _logs(cluster: Cluster, name: str, lines: int = 15) -> str:
    """The end of a daemon's log, and what it printed before it had one."""
    files = (cluster.dir / "log" / f"{name}.log", cluster.dir / "log" / f"{name}.out")
    return "".join(f"\n--- {path}\n{tail(path, lines)}" for path in files)


def accepts(address: Path | int) -> bool:
    """Whether a process listens on this Unix socket, or on this port of 127.0.0.1."""
    with socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET) as probe:
        try:
            probe.connect(str(address) if isinstance(address, Path) else ("127.0.0.1", address))
        except OSError:
            return False
    return True


def answers(cluster: Cluster, port: int, *argv: str) -> bool:
    """Whether a daemon answers a command; not asked before it listens, since Slurm's commands retry for 10 s."""
    return accepts(port) and cluster.command(*argv).returncode == 0


def register_accounts(cluster: Cluster) -> None:
    """An account and a user, so that an unknown account is refused; a QOS that admits one job, to meet a limit."""
    known = cluster.checked("sacctmgr", "-nP", "show", "assoc", f"user={cluster.user}", "format=account").split()
    if ACCOUNT in known:
        return
    with step("slurmdbd: registering cluster, account, user and QOS"):
        if CLUSTER not in cluster.checked("sacctmgr", "-nP", "show", "cluster", "format=cluster").split():
            cluster.checked("sacctmgr", "-i", "add", "cluster", CLUSTER)
        if "single" not in cluster.checked("sacctmgr", "-nP", "show", "qos", "format=name").split():
            cluster.checked("sacctmgr", "-i", "add", "qos", "single", "MaxSubmitJobsPerUser=1")
        if ACCOUNT not in cluster.checked("sacctmgr", "-nP", "show", "account", "format=account").split():
            cluster.checked("sacctmgr", "-i", "add", "account", ACCOUNT, f"cluster={CLUSTER}")
        cluster.checked(
            *("sacctmgr", "-i", "add", "user", cluster.user, f"account={ACCOUNT}", f"cluster={CLUSTER}"),
            *(f"defaultaccount={ACCOUNT}", "qos=normal,single", "defaultqos=normal"),
        )


def wait_for_nodes(cluster: Cluster) -> None:
    """
    Raises:
        ClusterError: a node did not come up, or sacct does not answer.
    """
    with step("waiting until all nodes are up" + ("" if cluster.without_accounting else " and sacct answers")):
        in_time = wait_until(lambda: cluster.is_up() or not all(map(cluster.pid, NODES)), 60)
        if ended := [node for node in NODES if not cluster.pid(node)]:
            raise ClusterError(f"{ended[0]} ended at once{_logs(cluster, ended[0])}")
        if not in_time:
            bad = {n: cluster.node_states().get(n, "unknown") for n in NODES}
            name = next((n for n, state in bad.items() if state not in UP_STATES), NODES[0])
            raise ClusterError(f"the nodes are not up after 60 s: {bad}{_logs(cluster, name)}")
        if cluster.without_accounting:
            return
        answer = cluster.command("sacct", "-n", "-X", "-P")
        if answer.returncode:
            raise ClusterError(f"sacct does not answer: {answer.stderr.strip()}{_logs(cluster, 'slurmdbd')}")


def stop(cluster: Cluster, only: list[str]) -> None:
    """End the cluster, or only some of its daemons; jobs end with the whole cluster."""
    running = {name: pid for name in cluster.parts() if (pid := cluster.pid(name))}
    if not only and "slurmctld" in running:
        with step("cancelling jobs"):
            cluster.command("scancel", "--user", cluster.user)
            wait_until(lambda: not cluster.command("squeue", "-h").stdout.strip(), 10)
    for name in reversed(list(cluster.parts())):
        if name in running and (not only or name in only):
            with step(f"{name}: stopping"):
                end(running[name])
            cluster.mark(name).unlink(missing_ok=True)
    if not only:
        for pid in leftovers(cluster):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def end(pid: int, seconds: float = 15) -> None:
    """TERM, then KILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_until(lambda: not is_alive(pid), seconds):
            return


def is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def leftovers(cluster: Cluster) -> list[int]:
    """Jobs of this cluster that outlived it, because their slurmd was killed before them."""
    pids = (int(process.name) for process in Path("/proc").iterdir() if process.name.isdigit())
    jobs = [pid for pid in pids if _is_job(pid, cluster)]
    return [*{step for pid in jobs if (step := step_above(pid))}, *jobs]


def _is_job(pid: int, cluster: Cluster) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"SLURM_CONF={cluster.conf}".encode() in environ and any(v.startswith(b"SLURM_JOB_ID=") for v in environ)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) or "(empty)"
    except OSError:
        return "(no such file)"
