"""A network namespace as the network of compute nodes: nothing of the machine is reached from it, or one address."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from capabilities import missing


@dataclass(frozen=True)
class NodeNetwork:
    """``login``: the machine's address on it; empty where the nodes reach only themselves."""

    name: str
    login: str

    @property
    def agent_command(self) -> list[str]:
        """``hpc.agent_command``: the agent of a job, on that network."""
        return ["ip", "netns", "exec", self.name, sys.executable, "-m", "hpc_agent"]


@contextmanager
def node_network(*, reaches_login: bool) -> Iterator[NodeNetwork]:
    """Ends the running test where there cannot be one."""
    if os.geteuid() != 0:
        missing("root", "only root can make a network namespace that jobs of Slurm enter")
    unique = uuid.uuid4().hex[:8]
    name = f"hpc{unique}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        missing("namespaces", made.stderr.strip())
    try:
        _ip(name, "link", "set", "lo", "up")
        login = ""
        if reaches_login:
            # 198.18.0.0/15 is for tests of networks (RFC 2544); each namespace has four addresses of its own.
            number = os.getpid() % 16384
            base = f"198.18.{number // 64}.{number % 64 * 4}"
            prefix, _, last = base.rpartition(".")
            login, node = f"{prefix}.{int(last) + 1}", f"{prefix}.{int(last) + 2}"
            outer, inner = f"o{unique}", f"i{unique}"
            _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
            _run("ip", "link", "set", inner, "netns", name)
            _run("ip", "addr", "add", f"{login}/30", "dev", outer)
            _run("ip", "link", "set", outer, "up")
            _ip(name, "addr", "add", f"{node}/30", "dev", inner)
            _ip(name, "link", "set", inner, "up")
        yield NodeNetwork(name, login)
    finally:
        # Its end of the pair of devices goes with it, and so the other one too.
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(name: str, *arguments: str) -> None:
    _run("ip", "-n", name, *arguments)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        missing("namespaces", f"{' '.join(argv)}: {done.stderr.strip()}")
