"""What is free of a cluster, and which partitions could hold a job."""

from __future__ import annotations

from hpc_agent.domain.resources import Resources
from hpc_agent.schedulers.availability import by_gpu_type, by_partition, could_hold, could_start_now, free_gpus
from hpc_agent.schedulers.cluster import ClusterState, GpuCount, NodeStatus, Partition


def node(
    name: str,
    kind: str = "a100",
    free: int = 4,
    *,
    usable: bool = True,
    cpus_free: int = 32,
    memory_free: int = 1000,
    partitions: tuple[str, ...] = ("gpu",),
) -> NodeStatus:
    gpus = (GpuCount(kind, 4, free),) if kind else ()
    return NodeStatus(name, partitions, "mixed", usable, 32, cpus_free, 4000, memory_free, gpus)


GPU = Partition("gpu", default=True, time_limit=60)
CPU = Partition("cpu")


def test_gpus_without_a_free_cpu_or_memory_on_their_node_are_not_free() -> None:
    assert free_gpus(node("n1", free=3)) == 3
    assert free_gpus(node("n1", free=3, cpus_free=0)) == 0
    assert free_gpus(node("n1", free=3, memory_free=0)) == 0
    assert free_gpus(node("n1", free=3, usable=False)) == 0
    assert free_gpus(node("n1", free=3), "h100") == 0


def test_types_with_the_most_free_gpus_come_first_with_the_best_node() -> None:
    state = ClusterState((GPU,), (node("n1", free=1), node("n2", free=2), node("n3", "h100", 4), node("n4", "h100", 0)))
    first, second = by_gpu_type(state)
    assert (first.kind, first.free, first.total, first.largest, first.node) == ("h100", 4, 8, 4, "n3")
    assert (second.kind, second.free, second.total, second.largest, second.node) == ("a100", 3, 8, 2, "n2")


def test_a_type_of_which_nothing_is_free_names_no_node() -> None:
    [found] = by_gpu_type(ClusterState((GPU,), (node("n1", free=0),)))
    assert (found.free, found.largest, found.node) == (0, 0, "")


def test_gpus_without_a_type_are_counted_too() -> None:
    untyped = NodeStatus("n1", ("gpu",), "idle", True, 32, 32, 4000, 4000, (GpuCount("", 4, 2),))
    [found] = by_gpu_type(ClusterState((GPU,), (untyped,)))
    assert (found.kind, found.free, found.total) == ("", 2, 4)


def test_a_partition_counts_what_its_usable_nodes_have() -> None:
    nodes = (
        node("n1", free=1, cpus_free=32),
        node("n2", usable=False, cpus_free=32),
        node("n3", "", cpus_free=8, partitions=("cpu", "gpu")),
    )
    gpu, cpu = by_partition(ClusterState((CPU, GPU), nodes))
    assert (gpu.partition.name, gpu.gpus.free, gpu.gpus.total) == ("gpu", 1, 8)
    assert (gpu.cpus_free, gpu.cpus, gpu.nodes_idle, gpu.nodes) == (40, 96, 1, 3)
    assert (cpu.partition.name, cpu.gpus.total, cpu.nodes) == ("cpu", 0, 1)


def test_a_partition_can_hold_what_its_nodes_and_its_time_limit_allow() -> None:
    state = ClusterState(
        (GPU, CPU), (node("n1", free=0), node("n2", usable=False), node("n3", "", partitions=("cpu",)))
    )
    assert could_hold(state, GPU, Resources(gpus=4, nodes=2, time_minutes=60))
    assert not could_hold(state, GPU, Resources(gpus=4, nodes=3))
    assert not could_hold(state, GPU, Resources(gpus=5))
    assert not could_hold(state, GPU, Resources(gpus=1, gpu_type="h100"))
    assert not could_hold(state, GPU, Resources(time_minutes=61))
    assert not could_hold(state, CPU, Resources(gpus=1))
    assert could_hold(state, CPU, Resources(cpus=32, time_minutes=100000))
    assert not could_hold(state, CPU, Resources(memory_mb=4001))
    assert not could_hold(state, Partition("cpu", takes_jobs=False), Resources())


def test_a_node_has_room_for_what_is_free_together() -> None:
    assert could_start_now(node("n1", free=2), Resources(gpus=2, cpus=32, memory_mb=1000))
    assert not could_start_now(node("n1", free=2), Resources(gpus=3))
    assert not could_start_now(node("n1", cpus_free=3), Resources(cpus=4))
    assert not could_start_now(node("n1", usable=False), Resources())
