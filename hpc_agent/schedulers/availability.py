"""What is free in a cluster, by GPU type and by partition, and which partitions could hold a job. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from hpc_agent.domain.resources import Resources
from hpc_agent.schedulers.cluster import ClusterState, NodeStatus, Partition


class GpuAvailability(msgspec.Struct, frozen=True):
    """The GPUs of one type, or all those of one partition."""

    kind: str
    free: int
    total: int
    largest: int
    """Free on one node: what a job on one node could have now."""
    node: str
    """Where ``largest`` is free; empty if nothing is."""
    partitions: tuple[str, ...]


class PartitionAvailability(msgspec.Struct, frozen=True):
    """One partition. A node counts in each of its partitions."""

    partition: Partition
    gpus: GpuAvailability
    cpus_free: int
    cpus: int
    nodes_idle: int
    """Without any job."""
    nodes: int


def free_gpus(node: NodeStatus, kind: str = "") -> int:
    """GPUs of a type, or of all types, that a job could have now: with a free CPU and memory on their node."""
    if not (node.usable and node.cpus_free and node.memory_mb_free):
        return 0
    return sum(gpu.free for gpu in node.gpus if kind in ("", gpu.kind))


def total_gpus(node: NodeStatus, kind: str = "") -> int:
    return sum(gpu.total for gpu in node.gpus if kind in ("", gpu.kind))


def gpu_types(nodes: Iterable[NodeStatus]) -> list[str]:
    return sorted({gpu.kind for node in nodes for gpu in node.gpus})


def by_gpu_type(state: ClusterState) -> list[GpuAvailability]:
    """Types with the most free GPUs first."""
    types = [
        _gpus([node for node in state.nodes if total_gpus(node, kind)], kind) for kind in gpu_types(state.nodes) if kind
    ]
    untyped = [node for node in state.nodes if any(not gpu.kind for gpu in node.gpus)]
    if untyped:
        types.append(_gpus(untyped, ""))
    return sorted(types, key=lambda gpus: (-gpus.free, gpus.kind))


def by_partition(state: ClusterState) -> list[PartitionAvailability]:
    """In the order of the cluster's own list, the default partition first."""
    found = []
    for partition in sorted(state.partitions, key=lambda each: not each.default):
        nodes = [node for node in state.nodes if partition.name in node.partitions]
        taken = [node for node in nodes if node.usable]
        found.append(
            PartitionAvailability(
                partition,
                _gpus(nodes, ""),
                sum(node.cpus_free for node in taken),
                sum(node.cpus for node in nodes),
                sum(node.cpus_free == node.cpus for node in taken),
                len(nodes),
            )
        )
    return found


def _gpus(nodes: Sequence[NodeStatus], kind: str) -> GpuAvailability:
    best = max(nodes, key=lambda node: free_gpus(node, kind), default=None)
    largest = free_gpus(best, kind) if best else 0
    return GpuAvailability(
        kind,
        sum(free_gpus(node, kind) for node in nodes),
        sum(total_gpus(node, kind) for node in nodes),
        largest,
        best.name if best and largest else "",
        tuple(dict.fromkeys(name for node in nodes for name in node.partitions)),
    )


def could_hold(state: ClusterState, partition: Partition, resources: Resources) -> bool:
    """Whether enough of a partition's nodes are large enough, busy or not, and its time limit is not too short.

    Accounts, QOS and the site's own rules are for the scheduler to judge.
    """
    wanted = resources.time_minutes
    if not partition.takes_jobs or (wanted and partition.time_limit and wanted > partition.time_limit):
        return False
    nodes = [node for node in state.nodes if partition.name in node.partitions and _is_large_enough(node, resources)]
    return len(nodes) >= resources.nodes


def _is_large_enough(node: NodeStatus, resources: Resources) -> bool:
    return (
        total_gpus(node, resources.gpu_type) >= resources.gpus
        and node.cpus >= (resources.cpus or 1)
        and node.memory_mb >= (resources.memory_mb or 0)
    )


def could_start_now(node: NodeStatus, resources: Resources) -> bool:
    """Whether the part of a job that one node gets is free there."""
    return (
        node.usable
        and node.cpus_free >= (resources.cpus or 1)
        and node.memory_mb_free >= (resources.memory_mb or 0)
        and free_gpus(node, resources.gpu_type) >= resources.gpus
    )
