"""``hpc-agent free``: what is free in the cluster now, and when a job of some size would start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec.structs import asdict, replace

from hpc_agent.cli.shared_options import HELP, Shared, missing_commands, pass_shared
from hpc_agent.cli.table import table_lines, text, transient_line, wrapped
from hpc_agent.cli.waiting_note import waiting_note

if TYPE_CHECKING:
    from hpc_agent.config.settings import HpcSettings
    from hpc_agent.domain.resources import Resources
    from hpc_agent.schedulers.availability import GpuAvailability
    from hpc_agent.schedulers.cluster import ClusterClient, ClusterState, ExpectedStart, NodeStatus

_MOST_PARTITIONS = 10
"""Each costs the controller a request."""
_MOST_NODES = 10
_SOON_S = 60
"""A start within these seconds is one now."""


@click.command(context_settings=HELP)
@click.option("--gpus", "--num-gpus", "num_gpus", help="A job with so many GPUs on each node.")
@click.option("--type", "--gpu-type", "gpu_type", help="GPUs of this type only.")
@click.option("--cpus", "--num-cpus", "num_cpus", help="A job with so many CPUs on each node.")
@click.option("--memory-gb", help="A job with so much memory on each node, in GiB.")
@click.option("--num-nodes", help="A job on so many nodes.")
@click.option("--time", "--time-limit", "time_limit", help="A job with this time limit: minutes or D-HH:MM:SS.")
@click.option("--partition", help="These partitions only, with commas.")
@click.option("--account", help="A job of this account (default: hpc.resources.account).")
@click.option("--qos", help="A job with this QOS (default: hpc.resources.qos).")
@click.option("--all", "every_node", is_flag=True, help="List all nodes, those without anything free too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: gpus, partitions, nodes, starts.")
@pass_shared
def command(shared: Shared, /, every_node: bool, as_json: bool, **request: str | None) -> None:
    """Show what is free now by GPU type, partition and node; with a size, also when such a job would start.

    \b
    hpc-agent free
    hpc-agent free --gpus 2 --type a100 --time 4:00:00
    """
    settings = shared.configuration().settings.hpc
    given = {name: value for name, value in request.items() if value is not None}
    wanted = _resources(settings, given)
    client = _client(settings)
    with waiting_note("Waiting for the scheduler …"):
        state = _narrowed(client.state(), given)
    sized = bool(given.keys() - {"partition", "gpu_type"})
    starts = _starts(client, state, wanted, "partition" in given) if sized else {}
    if as_json:
        click.echo(json.dumps(_as_json(state, starts), indent=2))
        return
    click.echo(click.style("Free now", bold=True) + "\n\n" + _overview(state))
    click.echo("\n" + _nodes(state, wanted if sized else None, every_node))
    if sized:
        click.echo("\n" + _expected(starts, wanted))


def _resources(settings: HpcSettings, given: Mapping[str, str]) -> Resources:
    """What a job of the site's defaults would ask for, with what was given here.

    Raises:
        InputError: a value is not an amount or a name.
    """
    from hpc_agent.domain.resources import PROPERTY_FIELDS, Override, Policy, Resources
    from hpc_agent.errors import InputError, ResourceError

    defaults = settings.resources.over(Resources())
    if "gpu_type" in given and "num_gpus" not in given:
        defaults = msgspec.structs.replace(defaults, gpus=max(defaults.gpus, 1))
    policy = Policy("", msgspec.structs.replace(defaults, partition=""), dict.fromkeys(PROPERTY_FIELDS, Override()))
    try:
        return policy.resources(given)
    except ResourceError as error:
        raise InputError(str(error).replace(", but every queue allows", ", expected")) from error


def _client(settings: HpcSettings) -> ClusterClient:
    """
    Raises:
        InputError: there is no cluster to ask about.
    """
    from hpc_agent.errors import InputError
    from hpc_agent.schedulers import backends

    backend = backends.choose(settings)
    client: ClusterClient | None = backend.cluster_client(settings)
    if not backend.is_installed():
        raise InputError(missing_commands(backend))
    if client is None:
        raise InputError(
            f"the scheduler of this machine is {backend.name}, which cannot tell what is free: run this command on a "
            "login node of a cluster, or set hpc.scheduler"
        )
    return client


def _narrowed(state: ClusterState, given: Mapping[str, str]) -> ClusterState:
    """Only the partitions and the nodes that were asked for.

    Raises:
        InputError: there is no such partition or GPU type, or no node is large enough.
    """
    from hpc_agent.schedulers.availability import gpu_types, total_gpus

    if names := [name for name in given.get("partition", "").split(",") if name]:
        known = [partition.name for partition in state.partitions]
        for name in names:
            _check_known("partition", name, known)
        chosen = tuple(partition for partition in state.partitions if partition.name in names)
        nodes = tuple(node for node in state.nodes if set(node.partitions) & set(names))
        state = replace(state, partitions=chosen, nodes=nodes)
    if kind := given.get("gpu_type", ""):
        _check_known("GPU type", kind, [name for name in gpu_types(state.nodes) if name])
        nodes = tuple(
            replace(node, gpus=tuple(gpu for gpu in node.gpus if gpu.kind == kind))
            for node in state.nodes
            if total_gpus(node, kind)
        )
        held = {name for node in nodes for name in node.partitions}
        state = replace(state, nodes=nodes, partitions=tuple(p for p in state.partitions if p.name in held))
    return state


def _check_known(what: str, name: str, known: Sequence[str]) -> None:
    from hpc_agent.errors import InputError

    if name not in known:
        raise InputError(f'no {what} that you may see is named "{name}"; there are: {", ".join(known) or "none"}')


def _starts(client: ClusterClient, state: ClusterState, wanted: Resources, named: bool) -> dict[str, ExpectedStart]:
    """Partition → when the job would start there. Those that are too small are asked about only if they were named.

    Raises:
        InputError: no partition is large enough.
    """
    from hpc_agent.errors import InputError
    from hpc_agent.schedulers.availability import could_hold, total_gpus

    names = [p.name for p in state.partitions if named or could_hold(state, p, wanted)]
    if not names:
        largest = max((total_gpus(node, wanted.gpu_type) for node in state.nodes), default=0)
        raise InputError(
            f"no partition can hold {_size(wanted)}: the largest node has {largest} GPUs"
            f"{f' of type {wanted.gpu_type}' if wanted.gpu_type else ''}, {max(n.cpus for n in state.nodes)} CPUs, "
            f"{max(n.memory_mb for n in state.nodes) / 1024:.0f} GiB, and partitions have time limits; --num-nodes "
            "spreads a job over several nodes"
        )
    if len(names) > _MOST_PARTITIONS:
        click.echo(f"Asking about {_MOST_PARTITIONS} of {len(names)} partitions; --partition names others", err=True)
    starts = {}
    for name in names[:_MOST_PARTITIONS]:
        with transient_line(f"Asking when it would start in {name} …"):
            starts[name] = client.expected_start(msgspec.structs.replace(wanted, partition=name))
    return starts


# ---------------------------------------------------------------- what is printed


def _overview(state: ClusterState) -> str:
    from hpc_agent.schedulers.availability import by_gpu_type, by_partition

    types = by_gpu_type(state)
    gpus = table_lines(
        [text("GPU TYPE"), text("FREE"), text("LARGEST FREE"), text("PARTITIONS")],
        [(g.kind or "any", f"{g.free} of {g.total}", _largest(g), ", ".join(g.partitions)) for g in types],
    )
    partitions = table_lines(
        [text(title) for title in ("PARTITION", "GPUS", "CPUS", "IDLE NODES", "TIME LIMIT", "")],
        [
            (
                p.partition.name + (" *" if p.partition.default else ""),
                f"{p.gpus.free} of {p.gpus.total}" if p.gpus.total else "",
                f"{p.cpus_free} of {p.cpus}",
                f"{p.nodes_idle} of {p.nodes}",
                _limit(p.partition.time_limit),
                "" if p.partition.takes_jobs else "takes no jobs",
            )
            for p in by_partition(state)
        ],
    )
    return "\n".join([*(gpus if types else ["No GPUs in the partitions that you may see"]), "", *partitions])


def _largest(gpus: GpuAvailability) -> str:
    return f"{gpus.largest} on {gpus.node}" if gpus.largest else "–"


def _limit(minutes: int | None) -> str:
    from hpc_agent.domain.resources import format_time_limit

    return "none" if minutes is None else format_time_limit(minutes)


def _nodes(state: ClusterState, wanted: Resources | None, every: bool) -> str:
    """The nodes with the most that is free first: those that a job fits on now, or with anything free."""
    from hpc_agent.schedulers.availability import could_start_now, free_gpus

    has_gpus = any(node.gpus for node in state.nodes)
    shown = [node for node in state.nodes if every or _has_free(node, has_gpus)]
    if wanted is not None and not every:
        shown = [node for node in state.nodes if could_start_now(node, wanted)]
    shown.sort(key=lambda node: (-free_gpus(node), -node.cpus_free * node.usable, node.name))
    if not shown:
        return "No node has room for that now" if wanted else "Nothing is free now; --all lists the nodes"
    cut = shown if every else shown[:_MOST_NODES]
    columns = [text(title) for title in ("NODE", "STATE", "GPUS", "CPUS", "MEMORY", "PARTITIONS")]
    rest = len(shown) - len(cut)
    more = [f"… and {rest} more nodes; --all lists them"] if rest else []
    return "\n".join([*table_lines(columns, [_node(node) for node in cut]), *more])


def _has_free(node: NodeStatus, gpus: bool) -> bool:
    from hpc_agent.schedulers.availability import free_gpus

    return bool(free_gpus(node)) if gpus else node.usable and node.cpus_free > 0


def _node(node: NodeStatus) -> tuple[str, ...]:
    gpus = " ".join(f"{gpu.free} of {gpu.total} {gpu.kind}".rstrip() for gpu in node.gpus)
    memory = f"{node.memory_mb_free / 1024:.0f} of {node.memory_mb / 1024:.0f} GiB"
    cpus = f"{node.cpus_free} of {node.cpus}"
    return (node.name, node.state, gpus, cpus, memory, ", ".join(node.partitions))


def _size(wanted: Resources) -> str:
    """``a job with 2 × a100, 8 CPUs for 04:00:00``."""
    from hpc_agent.domain.resources import format_time_limit

    parts = []
    if wanted.gpus:
        parts.append(f"{wanted.gpus} × {wanted.gpu_type or 'GPU'}")
    if wanted.cpus:
        parts.append(f"{wanted.cpus} CPU{'s' * (wanted.cpus > 1)}")
    if wanted.memory_mb:
        parts.append(f"{wanted.memory_mb / 1024:.9g} GiB")
    size = f"a job with {', '.join(parts)}" if parts else "a job of the default size"
    if wanted.nodes > 1:
        size += f" on each of {wanted.nodes} nodes"
    return size + (f" for {format_time_limit(wanted.time_minutes)}" if wanted.time_minutes else "")


def _expected(starts: Mapping[str, ExpectedStart], wanted: Resources) -> str:
    """The earliest first, what is refused last."""
    from hpc_agent.clock import SYSTEM

    now = SYSTEM.now()
    ordered = sorted(starts.items(), key=lambda each: (each[1].start is None, each[1].start or now, each[0]))
    rows = [
        (name, _when(found, now), found.nodes if found.start else found.refused or "no estimate")
        for name, found in ordered
    ]
    title = f"{_size(wanted)[0].upper()}{_size(wanted)[1:]} would start (an estimate; other jobs change it)"
    columns = [text("PARTITION"), text("START"), text("WHERE, OR WHY NOT")]
    return "\n".join([click.style(wrapped(title), bold=True), *table_lines(columns, rows)])


def _when(found: ExpectedStart, now: datetime) -> str:
    from hpc_agent.domain.duration import format_duration

    if found.start is None:
        return "refused" if found.refused else "unknown"
    seconds = (found.start - now).total_seconds()
    if seconds <= _SOON_S:
        return "now"
    return f"in {format_duration(seconds)} ({found.start.astimezone():%a %d %b %H:%M})"


def _as_json(state: ClusterState, starts: Mapping[str, ExpectedStart]) -> dict[str, Any]:
    from hpc_agent.schedulers.availability import by_gpu_type, by_partition, free_gpus

    return {
        "gpus": [{**asdict(gpus), "partitions": list(gpus.partitions)} for gpus in by_gpu_type(state)],
        "partitions": [
            {
                "name": p.partition.name,
                "default": p.partition.default,
                "takes_jobs": p.partition.takes_jobs,
                "time_limit_minutes": p.partition.time_limit,
                "gpus_free": p.gpus.free,
                "gpus": p.gpus.total,
                "cpus_free": p.cpus_free,
                "cpus": p.cpus,
                "nodes_idle": p.nodes_idle,
                "nodes": p.nodes,
            }
            for p in by_partition(state)
        ],
        "nodes": [{**msgspec.to_builtins(node), "gpus_free": free_gpus(node)} for node in state.nodes],
        "starts": [
            {
                "partition": name,
                "start": found.start.isoformat() if found.start else None,
                "nodes": found.nodes,
                "refused": found.refused,
            }
            for name, found in starts.items()
        ],
    }
