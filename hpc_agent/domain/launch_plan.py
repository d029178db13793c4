"""Launch plan of a task: on how many nodes it runs, how many ranks each has, and what starts them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

import msgspec

from hpc_agent.errors import ResourceError

LAUNCHER_PROPERTY = "launcher"
RANKS_PROPERTY = "ranks_per_node"
LAUNCH_PROPERTIES = (LAUNCHER_PROPERTY, RANKS_PROPERTY)
"""User properties of a task."""
_MOST_RANKS = 1024


class Launcher(Enum):
    """What starts the ranks; the value is the setting's and the property's."""

    STEP = "srun"
    """The scheduler's own command."""
    TORCHRUN = "torchrun"
    ACCELERATE = "accelerate"
    MPIRUN = "mpirun"
    NONE = "none"
    """The task's command runs once, on the first node."""


class LaunchPlan(msgspec.Struct, frozen=True):
    launcher: Launcher
    nodes: int
    ranks_per_node: int

    @property
    def world_size(self) -> int:
        return self.nodes * self.ranks_per_node


class LaunchDefaults(msgspec.Struct, frozen=True):
    """Of the site and the queue. ``ranks_per_node`` 0: one for each GPU, and one where there are none."""

    launcher: Launcher = Launcher.STEP
    ranks_per_node: int = 0


def launch_plan(properties: Mapping[str, str], defaults: LaunchDefaults, *, nodes: int, gpus: int) -> LaunchPlan | None:
    """The plan for a job of ``nodes`` nodes with ``gpus`` GPUs each; None where the task runs as one process.

    Raises:
        ResourceError: a property of the task is not one of the choices, or not a number of ranks.
    """
    chosen = properties.get(LAUNCHER_PROPERTY, "").strip()
    launcher = parse_launcher(chosen, LAUNCHER_PROPERTY) if chosen else defaults.launcher
    asked = _ranks(properties.get(RANKS_PROPERTY, "").strip())
    ranks = asked or defaults.ranks_per_node or gpus or 1
    if nodes == 1 and (launcher is Launcher.NONE or not (chosen or asked)):
        return None
    return LaunchPlan(launcher, nodes, 1 if launcher is Launcher.NONE else ranks)


def parse_launcher(text: str, name: str) -> Launcher:
    """The launcher of this name; ``name`` is that of the setting or property.

    Raises:
        ResourceError: it is none of the choices.
    """
    try:
        return Launcher(text)
    except ValueError as error:
        choices = ", ".join(launcher.value for launcher in Launcher)
        raise ResourceError(f'{name} is "{text[:60]}", expected one of: {choices}') from error


def _ranks(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= _MOST_RANKS:
        raise ResourceError(
            f'{RANKS_PROPERTY} is "{text[:60]}", expected the number of ranks on each node, from 1 to {_MOST_RANKS}'
        )
    return int(text)
