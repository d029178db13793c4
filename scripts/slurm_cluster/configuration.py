"""The files a cluster needs: slurm.conf, slurmdbd.conf, gres.conf, munge's key, simulated GPUs."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from pathlib import Path

from slurm_cluster.errors import ClusterError, MissingProgramError
from slurm_cluster.layout import (
    ACCOUNTING_PROGRAMS,
    CLUSTER,
    GPU_TYPES,
    GPUS_PER_NODE,
    NODES,
    PACKAGES,
    PROGRAMS,
    Cluster,
    find_program,
)

SLURM_CONF = """\
# Written by scripts/slurm-cluster. Waits are short, so that tests are.
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[slurmctld]}
{listen}{plugins}SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it may start again (120 s by default).
AuthInfo=socket={dir}/munge/socket,cred_expire=5
StateSaveLocation={dir}/state
SlurmctldPidFile={dir}/run/slurmctld.pid
SlurmdPidFile={dir}/run/%n.pid
SlurmdSpoolDir={dir}/spool/%n
SlurmctldLogFile={dir}/log/slurmctld.log
SlurmdLogFile={dir}/log/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=30
KillWait=5
# Fails while there is a file prolog-fails in the folder.
Prolog={dir}/prolog
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1024
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
{accounting}GresTypes=gpu
EnforcePartLimits=ALL
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=10 PreemptMode=OFF DefaultTime=60
PartitionName=short Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=5
PartitionName=urgent Nodes=ALL PriorityTier=20 PreemptMode=OFF
PartitionName=scavenge Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports[slurmdbd]}
# No password: for connections to slurmdbd munge's socket is taken from here, not from AuthInfo.
AccountingStoragePass={dir}/munge/socket
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
"""

CGROUP_CONF = """\
# From 23.11 on slurmd looks for a cgroup file system, whatever the plugins, and ends where it finds none.
CgroupPlugin=disabled
"""
CGROUP_SINCE = (23, 11)

NODE_LINE = (
    "NodeName={node} NodeAddr=127.0.0.1 NodeHostname={host} Port={port} CPUs=4 RealMemory=8192 "
    "Gres=gpu:{gpu}:{count} Feature={gpu} State=UNKNOWN"
)

SLURMDBD_CONF = """\
{plugins}AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={ports[slurmdbd]}
SlurmUser={user}
PidFile={dir}/run/slurmdbd.pid
LogFile={dir}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=slurm_acct
"""


def check_machine(cluster: Cluster) -> None:
    """
    Raises:
        MissingProgramError: a program is not installed.
        ClusterError: the folder's path will not do.
    """
    accounting = () if cluster.without_accounting else ACCOUNTING_PROGRAMS
    missing = [name for name in (*PROGRAMS, *accounting) if not _exists(name, cluster.path)]
    if missing:
        raise MissingProgramError(
            f"a Slurm cluster cannot be started here: {', '.join(missing)} not found; "
            f"on Debian or Ubuntu install them as root with: apt install --no-install-recommends {PACKAGES}"
        )
    longest = len(str(cluster.dir / "mariadb" / "socket"))
    if longest > 100:
        raise ClusterError(
            f"{cluster.dir} is too long a path for Unix sockets: choose a --dir of 80 characters or less"
        )
    if any(character.isspace() for character in str(cluster.dir)):
        raise ClusterError(f'"{cluster.dir}" has a space in it, which slurm.conf cannot hold: choose another --dir')


def _exists(name: str, path: str) -> bool:
    try:
        find_program(name, path)
    except MissingProgramError:
        return False
    return True


def write_configuration(cluster: Cluster) -> dict[str, int]:
    """Make folders, keys and configuration; returns the ports. What runs keeps the configuration it started with."""
    for folder in ("munge", "mariadb", "run", "log", "state", *(f"spool/{node}" for node in NODES), "gpu"):
        (cluster.dir / folder).mkdir(parents=True, exist_ok=True)
    remembered = cluster.dir / "ports.json"
    ports: dict[str, int] = json.loads(remembered.read_text()) if remembered.exists() else {}
    if any(cluster.pid(part) for part in cluster.parts()):
        return ports
    ports = _free_ports(ports)
    remembered.write_text(json.dumps(ports))
    write_files(cluster, ports)
    key = cluster.dir / "munge" / "key"
    if not key.exists():
        cluster.checked("mungekey", "--create", f"--keyfile={key}")
    return ports


def write_files(cluster: Cluster, ports: dict[str, int]) -> None:
    """Slurm's configuration files. Daemons that run do not read them again."""
    for index in range(GPUS_PER_NODE):
        # slurmd wants a character device for each GPU; which one matters only to cgroups, not used here.
        with contextlib.suppress(FileExistsError):
            (cluster.dir / "gpu" / f"nvidia{index}").symlink_to("/dev/null")
    nodes = [
        NODE_LINE.format(node=node, host=cluster.host, port=ports[node], gpu=gpu, count=GPUS_PER_NODE)
        for node, gpu in GPU_TYPES.items()
    ]
    fields = {
        "listen": _listen(cluster.host),
        "plugins": f"PluginDir={cluster.release.plugins}\n" if cluster.release else "",
        "dir": cluster.dir,
        "cluster": CLUSTER,
        "host": cluster.host,
        "user": cluster.user,
        "ports": ports,
    }
    _write(cluster.dir / "prolog", f"#!/bin/sh\ntest ! -e {cluster.dir}/prolog-fails\n", 0o755)
    accounting = "" if cluster.without_accounting else ACCOUNTING.format(**fields)
    _write(cluster.conf, SLURM_CONF.format(nodes="\n".join(nodes), accounting=accounting, **fields), 0o644)
    _write(cluster.dir / "slurmdbd.conf", SLURMDBD_CONF.format(**fields), 0o600)
    if cluster.version >= CGROUP_SINCE:
        _write(cluster.dir / "cgroup.conf", CGROUP_CONF, 0o644)
    gres = [
        f"NodeName={node} Name=gpu Type={gpu} File={cluster.dir}/gpu/nvidia[0-{GPUS_PER_NODE - 1}]"
        for node, gpu in GPU_TYPES.items()
    ]
    _write(cluster.dir / "gres.conf", "\n".join(gres) + "\n", 0o644)


def _listen(host: str) -> str:
    """Listen on 127.0.0.1 only; slurmctld can do so only where the host's name means that address."""
    with contextlib.suppress(OSError):
        if socket.gethostbyname(host) == "127.0.0.1":
            return "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny\n"
    return ""


def _write(path: Path, text: str, mode: int) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _free_ports(ports: dict[str, int]) -> dict[str, int]:
    """A port for each daemon: the one it had, unless another program took it meanwhile."""
    chosen = dict(ports)
    for name in ("slurmctld", "slurmdbd", *NODES):
        while name not in chosen or not _is_free(chosen[name]):
            # Below the range from which the kernel takes ports for outgoing connections.
            chosen[name] = random.randrange(16000, 32000)
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
