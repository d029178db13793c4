"""Targets of the relay: the addresses that jobs may reach through it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from hpc_agent.config.settings import AllSettings

_PORTS = {"http": 80, "https": 443}


class RelayTarget(msgspec.Struct, frozen=True):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_target(text: str) -> RelayTarget | None:
    """``host:port``; None for anything else."""
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname or parts.port is None or parts.path or parts.username is not None:
            return None
        return RelayTarget(parts.hostname, parts.port)
    except ValueError:
        return None


def target_of(url: str) -> RelayTarget | None:
    """Where an http or https URL leads; None for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        return RelayTarget(parts.hostname, port) if parts.hostname and port else None
    except ValueError:
        return None


def allowed_targets(settings: AllSettings) -> frozenset[RelayTarget]:
    """The ClearML servers, and what the site allows in addition."""
    api = settings.api
    servers = map(target_of, (api.api_server, api.files_server, api.web_server))
    return frozenset([*filter(None, servers), *_named(settings.hpc.relay.allowed)])


def _named(addresses: Iterable[str]) -> Iterable[RelayTarget]:
    for address in addresses:
        found = parse_target(address)
        if found is not None:
            yield found
        else:
            yield from (RelayTarget(address.strip("[]").lower(), port) for port in _PORTS.values())


def refusal(target: RelayTarget, allowed: Iterable[RelayTarget]) -> str:
    """Why a job may not reach a target."""
    known = ", ".join(sorted(map(str, allowed)))
    return f"{target} is not reached from this node: the relay leads to {known}; hpc.relay.allowed opens further hosts"
