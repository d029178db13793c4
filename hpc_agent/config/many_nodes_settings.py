"""Settings of tasks on many nodes: the block ``hpc.many_nodes``."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from hpc_agent.config.types import Count, SettingsGroup
from hpc_agent.domain.launch_plan import Launcher, parse_launcher
from hpc_agent.errors import ConfigError

LAUNCHERS = ", ".join(launcher.value for launcher in Launcher)
_LARGEST_PORT = 65535


class ManyNodesSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.many_nodes``: how tasks on many nodes are started."""

    launcher: Annotated[
        str, Meta(description=f"What starts the ranks of a task on many nodes: {LAUNCHERS}; the task may name another.")
    ] = Launcher.STEP.value
    ranks_per_node: Annotated[
        Count, Meta(description="Ranks on each node; 0: one for each GPU, and one where there are none.")
    ] = 0
    interface: Annotated[
        str, Meta(description="Network interface of the nodes that the ranks use (`ib0`); the usual one when empty.")
    ] = ""
    ports: Annotated[str, Meta(description="Range from which a job's MASTER_PORT is taken.")] = "20000-29999"

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_launcher(self.launcher, "hpc.many_nodes.launcher")
        if self.interface and not re.fullmatch(r"[A-Za-z0-9_.:-]{1,15}", self.interface):
            raise ConfigError(f'hpc.many_nodes.interface is "{self.interface}", expected a name such as ib0 or eth1')
        _ = self.port_range

    @property
    def port_range(self) -> range:
        """
        Raises:
            ConfigError: it is not a range of ports.
        """
        match = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", self.ports)
        first, last = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1024 <= first <= last <= _LARGEST_PORT:
            raise ConfigError(
                f'hpc.many_nodes.ports is "{self.ports}", expected two numbers from 1024 to {_LARGEST_PORT} such as '
                "20000-29999"
            )
        return range(first, last + 1)
