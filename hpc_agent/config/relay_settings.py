"""Relay for compute nodes without a way to the ClearML server: the block ``relay`` of the section ``hpc``."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from hpc_agent.config.types import Count, SettingsGroup
from hpc_agent.errors import ResourceError

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?")


class RelaySettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.relay``: how jobs reach the ClearML server."""

    through: Annotated[
        Literal["none", "network", "files"],
        Meta(
            description="none: by themselves; network: through the daemon, which listens on `host`; files: through the "
            "daemon by files below `hpc.root`, for nodes that reach not even the login node."
        ),
    ] = "none"
    host: Annotated[
        str, Meta(description="Address or name of the login node on the cluster's inner network, for the daemon.")
    ] = ""
    port: Annotated[Count, Meta(description="Port to listen on there; 0 takes a free one.")] = 0
    allowed: Annotated[
        tuple[str, ...],
        Meta(
            description="What jobs may reach through it in addition to the ClearML server, as `host` or `host:port`; a "
            "host alone is its ports 80 and 443."
        ),
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.through == "network" and not self.host:
            raise ResourceError(
                'through is "network", and host is empty: set it to the address of the login node on the cluster\'s '
                "inner network"
            )
        if self.port > 65535:
            raise ResourceError(f"port is {self.port}, expected a number up to 65535")
        for address in self.allowed:
            if not _ADDRESS.fullmatch(address):
                raise ResourceError(f'allowed has "{address}", expected a host such as pypi.org or pypi.org:443')
