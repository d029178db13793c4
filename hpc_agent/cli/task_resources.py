"""Flags of ``hpc-task`` for a task's resources and ranks; each writes the user property of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

# Importing the properties would import the domain; a test holds the names equal to resources.PROPERTY_FIELDS.
RESOURCES = {
    "num_gpus": ("N", "GPUs per node."),
    "gpu_type": ("TYPE", "GPU type, as the cluster names it: a100."),
    "num_cpus": ("N", "CPUs."),
    "memory_gb": ("GIB", "Memory per node in GiB."),
    "time_limit": ("TIME", "Time limit: minutes, or D-HH:MM:SS, as in 4:00:00."),
    "num_nodes": ("N", "Nodes."),
    "partition": ("NAME", "Partition, or several with commas."),
    "account": ("NAME", "Account to charge."),
    "qos": ("NAME", "Quality of service."),
    "constraint": ("FEATURES", "Features that the nodes must have."),
    "reservation": ("NAME", "Reservation."),
}
"""User property → what its value is called, and its help. The flag is ``--num-gpus`` for ``num_gpus``."""

LAUNCH = {
    "launcher": ("NAME", "What starts the ranks, such as torchrun or mpirun."),
    "ranks_per_node": ("N", "Ranks on each node. Without it one for each GPU."),
}
"""User properties of ``domain.launch_plan``, as ``RESOURCES``."""

Command = Callable[..., Any]


def _not_empty(_context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("it is empty; leave the flag out for the queue's default", param=option)
    return value


def resource_flags(command: Command) -> Command:
    return _property_flags(command, RESOURCES)


def launch_flags(command: Command) -> Command:
    return _property_flags(command, LAUNCH)


def _property_flags(command: Command, properties: Mapping[str, tuple[str, str]]) -> Command:
    for name, (metavar, text) in reversed(list(properties.items())):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, name, metavar=metavar, callback=_not_empty, help=text)(command)
    return command
