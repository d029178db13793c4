"""Rank launcher: becomes the task's program as one rank of it, with its variables and its output's FIFO.

    python -I -S rank_launcher.py FOLDER LOCATION NODE_VARIABLE RANK_VARIABLE LOCAL_RANK_VARIABLE MODE

Run by path with the standard library alone, as ``exec_launcher`` is: many start at once from a shared file system. The
node agent has written ``node.json`` into ``FOLDER.<node>`` or ``FOLDER``, or else into the folder that the file
``LOCATION<node>`` names, where local disks have different paths. MODE is ``rank``; ``starter`` to become the
program that starts the node's ranks, such as torchrun; or ``single`` for a task whose one process is not a rank.
torchrun's and mpirun's own variables tell the rank where these are there, else the scheduler's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

RECORD = "node.json"
RANK, STARTER, SINGLE = "rank", "starter", "single"
_FAMILIES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("TORCHELASTIC_RUN_ID", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
)


def main() -> None:
    folder, location, node_variable, rank_variable, local_variable, mode = sys.argv[1:]
    record = _read(folder, location, os.environ.get(node_variable, ""))
    environ = environment(os.environ, record, (rank_variable, local_variable), mode)
    argv = record["starter"] if mode == STARTER else record["argv"]
    if mode == RANK:
        _open_output(os.path.join(record["folder"], f"rank.{environ['LOCAL_RANK']}"))  # noqa: PTH118
    # Python changes these for itself; the program gets what any program starts with.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.chdir(record["cwd"])
        os.environ.clear()
        os.environ.update(environ)
        os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"{argv[0]} cannot be started in {record['cwd']}: {error.strerror}\n".encode())
    os._exit(127)


def _read(folder: str, location: str, node: str) -> dict[str, Any]:
    for name in (f"{folder}.{node}", folder, *_located(f"{location}{node}")):
        try:
            with open(os.path.join(name, RECORD), encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH118, PTH123
                found: dict[str, Any] = json.load(file)
        except FileNotFoundError:
            continue
        if found["node"] == node:
            return found
    sys.exit(f"node {node} has not been prepared for the task: no {RECORD} in {folder}")


def _located(location: str) -> list[str]:
    """Asked for last: it is on the shared file system."""
    try:
        with open(location, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            return [file.read()]
    except OSError:
        return []


def environment(
    inherited: Mapping[str, str], record: Mapping[str, Any], scheduler: tuple[str, str], mode: str
) -> dict[str, str]:
    """``inherited`` with the changes for the task's program, and in a rank its variables; ``scheduler``: names of the
    scheduler's variables for rank and local rank."""
    environ = {name: value for name, value in inherited.items() if name not in record["unset"]}
    environ.update(record["set"])
    if mode == RANK:
        environ.update(_rank(inherited, record, *scheduler))
        if environ["LOCAL_RANK"] != "0":
            # One process a node reports the machine's use.
            environ["CLEARML_MULTI_NODE_SINGLE_TASK"] = "-1"
    return environ


def _rank(
    inherited: Mapping[str, str], record: Mapping[str, Any], rank_variable: str, local_variable: str
) -> dict[str, str]:
    index, per_node = record["index"], record["ranks_per_node"]
    node = {"NODE_RANK": str(index), "GROUP_RANK": str(index), "NNODES": str(record["nodes"])}
    mpi, torch = _FAMILIES
    if mpi[0] in inherited:
        values = [inherited.get(name, "0") for name in mpi]
        return {**node, **dict(zip(("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"), values, strict=True))}
    if torch[0] in inherited:
        # torchrun's own, and its port: what is set for all ranks must not cover them.
        own = ("RANK", *torch[1:], "MASTER_ADDR", "MASTER_PORT")
        return {**node, **{name: inherited[name] for name in own if name in inherited}}
    return {
        **node,
        "RANK": inherited.get(rank_variable, "0"),
        "LOCAL_RANK": inherited.get(local_variable, "0"),
        "WORLD_SIZE": str(record["nodes"] * per_node),
        "LOCAL_WORLD_SIZE": str(per_node),
    }


def _open_output(fifo: str) -> None:
    """Print into the node's FIFO; where it is not there the output stays as it is."""
    try:
        output = os.open(fifo, os.O_WRONLY)
    except OSError:
        return
    for target in (1, 2):
        os.dup2(output, target)
    os.close(output)


if __name__ == "__main__":
    main()
