"""Files of a run directory that belong to the nodes of a job of many: each node's console, use and inputs."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from hpc_agent.domain.task import Task
from hpc_agent.runs.directory import ConsoleFiles, RunDirectory

_CONSOLE = re.compile(r"console(?:\.(\d+))?\.n(\d+)\.log")


class LaunchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``launch.json``: what the agent of a job's first node decided for all of them."""

    task: Task
    launcher: str
    nodes: int
    ranks_per_node: int
    master_addr: str
    master_port: int
    folder: str
    """Where the first node has the task's code, and the others too if they can."""
    interface: str = ""


def launch_file(directory: RunDirectory, start: int) -> Path:
    return directory.path / f"launch.{start}.json"


def location_file(directory: RunDirectory, start: int, node: str) -> Path:
    """Where a node has the task's code that has it elsewhere than the first one."""
    return directory.path / f"node.{start}.{node}"


def usage_file(directory: RunDirectory, start: int, node: int) -> Path:
    """What the node used."""
    return directory.path / f"usage.{start}.n{node}.json"


def inputs_file(directory: RunDirectory, start: int) -> Path:
    """What the task ran with, as its first node found it."""
    return directory.path / f"inputs.{start}.json"


def console(directory: RunDirectory, start: int, node: int | None) -> ConsoleFiles:
    """Console of one start of the job: the agent's for None, else what the ranks of this node print."""
    own = directory.console(start)
    if node is None:
        return own
    return ConsoleFiles(*(path.with_name(f"{path.stem}.n{node}{path.suffix}") for path in (own.text, own.mark)))


def consoles(directory: RunDirectory) -> list[list[ConsoleFiles]]:
    """Those that are here: a list for each node, in the order of the starts."""
    found = [(int(match[2]), int(match[1] or 0)) for name in directory.names() if (match := _CONSOLE.fullmatch(name))]
    nodes = sorted({node for node, _ in found})
    return [[console(directory, start, node) for of, start in sorted(found) if of == node] for node in nodes]
