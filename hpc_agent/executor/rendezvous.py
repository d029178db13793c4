"""Rendezvous of the ranks: an address and a free port of the first node, which all of them are given."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import psutil

from hpc_agent.errors import InputError


def master_address(name: str, interface: str) -> str:
    """Address of this machine for its ranks; ``name``: as the scheduler calls it.

    Raises:
        InputError: it has no interface of that name, or none with an IPv4 address.
    """
    addresses = _addresses()
    if interface:
        if interface not in addresses:
            known = ", ".join(sorted(addresses)) or "none"
            raise InputError(
                f"hpc.many_nodes.interface is {interface}, which {name or socket.gethostname()} does not have with an "
                f"IPv4 address; it has: {known}"
            )
        return addresses[interface][0]
    if name and _is_reachable(name):
        return name
    others = [address for found in addresses.values() for address in found if not address.startswith("127.")]
    return others[0] if others else "127.0.0.1"


def _is_reachable(name: str) -> bool:
    """Whether this machine's name leads to an address of its own other than the loopback's: Debian's /etc/hosts has
    127.0.1.1 for it, where no other machine finds it."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError:
        return False
    return bool(found) and not any(address.startswith("127.") for address in found)


def _addresses() -> dict[str, list[str]]:
    """IPv4 addresses of each interface that has one."""
    found = {
        interface: [entry.address for entry in entries if entry.family == socket.AF_INET]
        for interface, entries in psutil.net_if_addrs().items()
    }
    return {interface: addresses for interface, addresses in found.items() if addresses}


def free_port(ports: Sequence[int], number: int) -> int:
    """A port of this machine that no program listens on. ``number``: the job's; jobs of different numbers begin their
    search at different ports, so that two that look at the same time do not take the same one.

    Raises:
        InputError: none of them is free.
    """
    start = number * _STRIDE % len(ports)
    for offset in range(len(ports)):
        port = ports[(start + offset) % len(ports)]
        if _is_free(port):
            return port
    raise InputError(f"none of the ports {ports[0]}-{ports[-1]} (hpc.many_nodes.ports) is free on this node")


_STRIDE = 17
"""Ports between the beginnings of two successive jobs' searches."""


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
