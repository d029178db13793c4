"""The section that ``hpc-agent init`` proposes for a site: settings that load, and suit what was found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from hpc_agent.config.hocon import parse
from hpc_agent.config.load import load
from hpc_agent.config.settings import HpcSettings
from hpc_agent.config.tree import get
from hpc_agent.schedulers.cluster import Account, ClusterFacts, Finding, GpuCount, NodeStatus, Partition
from hpc_agent.setup.folders import Folder
from hpc_agent.setup.section import Choices, SetElsewhere, render, suggested_partition
from hpc_agent.setup.survey import SiteFacts


def node(
    name: str, partitions: tuple[str, ...], gpus: tuple[GpuCount, ...] = (), memory_mb: int = 512000
) -> NodeStatus:
    return NodeStatus(name, partitions, "idle", True, 64, 64, memory_mb, memory_mb, gpus)


CLUSTER = ClusterFacts(
    scheduler="Slurm 24.11.5",
    cluster="hpc",
    partitions=(
        Partition("cpu", default=True, time_limit=2880),
        Partition("gpu", time_limit=1440, max_nodes=4),
        Partition("old", takes_jobs=False),
        Partition("theirs", accounts=("them",), allowed=False),
    ),
    nodes=(
        node("c1", ("cpu",)),
        node("g1", ("gpu",), (GpuCount("a100", 4, 4),)),
        node("g2", ("gpu", "theirs"), (GpuCount("h100", 8, 8),), memory_mb=1024000),
    ),
    accounts=(
        Account("lab", True, "", ("normal", "long"), "normal", {"MaxSubmit": "50"}),
        Account("course", qos=("normal",)),
    ),
    qos={"normal": {"MaxSubmitPU": "20"}, "long": {"MaxWall": "7-00:00:00"}},
    accounting=True,
    limits={"MaxArraySize": "1001"},
    settings={"gpu_flag": Finding("gpus", "sbatch --test-only accepts --gpus=1"), "accounting": Finding("sacct", "x")},
    local_scratch="/local",
    notes=("newer than 24.05, the newest that was tested",),
    unanswered=("how memory is asked for: no answer",),
)
SITE = SiteFacts("slurm", True, CLUSTER, (Folder(Path("/home/ann"), "home", "nfs4", 5.0),), ("apptainer",))


DEFAULTS = Choices()
NOWHERE = SetElsewhere()


def text(facts: SiteFacts = SITE, choices: Choices = DEFAULTS, elsewhere: SetElsewhere = NOWHERE) -> str:
    return "\n".join(render(facts, choices, elsewhere))


def loaded(tmp_path: Path, *args: Any, **named: Any) -> HpcSettings:
    file = tmp_path / "clearml.conf"
    file.write_text(text(*args, **named), encoding="utf-8")
    return load(file, {}).settings.hpc


def test_a_queue_gets_a_gpus_share_of_the_smallest_node_and_the_largest_as_its_bounds(tmp_path: Path) -> None:
    hpc = loaded(tmp_path, choices=Choices(("train",), "gpu"))
    queue = hpc.queue("train")
    resources = queue.policy("train", hpc.resources).resources({})
    assert (resources.partition, resources.gpus, resources.cpus, resources.memory_mb) == ("gpu", 1, 8, 112 * 1024)
    assert resources.time_minutes == 1440
    rules = queue.overrides or {}
    assert (rules["num_gpus"].max, rules["num_cpus"].max, rules["memory_gb"].max) == (8, 64, 1000)
    assert rules["time_limit"].max == "1-00:00:00"
    assert rules["gpu_type"].choices == ("a100", "h100")
    # Not where jobs are not taken, or not from this user.
    assert rules["partition"].choices == ("cpu", "gpu")
    # The smallest of the limits of the account and of its QOS.
    assert queue.max_jobs == 20


def test_a_partition_without_gpus_has_no_rules_for_them(tmp_path: Path) -> None:
    hpc = loaded(tmp_path, choices=Choices(("q",), "cpu"))
    queue = hpc.queue("q")
    assert queue.resources.num_gpus == 0
    assert {"num_gpus", "gpu_type"} & set(queue.overrides or {}) == set()


def test_what_was_found_out_is_set_with_the_evidence_next_to_it(tmp_path: Path) -> None:
    assert loaded(tmp_path).scheduler == "slurm"
    lines = [line.strip() for line in text().splitlines()]
    assert lines[lines.index("gpu_flag: gpus") - 1] == "# sbatch --test-only accepts --gpus=1."


def test_the_head_has_partitions_accounts_limits_and_what_is_not_known() -> None:
    head = text().partition("hpc {")[0]
    rows = [line.split() for line in head.splitlines()]
    assert ["#", "cpu", "*", "1", "64", "2-00:00:00"] in rows
    assert ["#", "theirs", "(not", "yours)", "1", "64", "8", "h100", "none", "them"] in rows
    assert "# Account lab (your default), QOS normal long, MaxSubmit 50" in head
    assert "# QOS long: MaxWall 7-00:00:00" in head
    assert "# Not found out: how memory is asked for: no answer" in head
    assert "# MaxArraySize 1001" in head


def test_a_time_limit_is_proposed_where_the_partition_has_no_default(tmp_path: Path) -> None:
    default = msgspec.structs.replace(
        CLUSTER, partitions=(Partition("gpu", default=True, time_limit=2880, default_time=30),)
    )
    assert "# The partition's default is 00:30:00." in text(replace(SITE, cluster=default), Choices(partition="gpu"))
    assert loaded(tmp_path, replace(SITE, cluster=default), Choices(partition="gpu")).resources.time_limit is None
    unlimited = msgspec.structs.replace(CLUSTER, partitions=(Partition("gpu"),))
    hpc = loaded(tmp_path, replace(SITE, cluster=unlimited), Choices(partition="gpu"))
    assert hpc.resources.time_limit == "1-00:00:00"


def test_choices_are_set_and_proposals_are_comments(tmp_path: Path) -> None:
    chosen = Choices(("a queue", "b.c"), "gpu", "course", "normal", "/work/ann/hpc", "/scratch/ann/cache")
    hpc = loaded(tmp_path, choices=chosen)
    assert set(hpc.queues) == {"a queue", "b.c"}
    assert (hpc.resources.account, hpc.resources.qos) == ("course", "normal")
    assert (str(hpc.root), str(hpc.cache)) == ("/work/ann/hpc", "/scratch/ann/cache")
    proposed = loaded(tmp_path)
    assert (proposed.resources.account, proposed.cache_dir, proposed.scratch_dir) == (None, None, None)
    assert "# account: lab" in text() and '# scratch_dir: "/local"' in text() and "apptainer }" in text()


def test_what_another_place_sets_stays_a_comment() -> None:
    tree = {"hpc": {"scheduler": "slurm", "queues": {"default": {"overrides": {"num_gpus": {"max": 2}}}}}}
    origins = {"hpc.scheduler": "/etc/site.conf", "hpc.queues.default.overrides.num_gpus.max": "/etc/site.conf"}
    rendered = text(choices=Choices(partition="gpu"), elsewhere=SetElsewhere(tree, origins))
    assert "    # scheduler: slurm    (set in /etc/site.conf)" in rendered
    assert "# num_gpus { max: 8 }    (set in /etc/site.conf)" in rendered
    queue = get(parse(rendered, "text"), "hpc.queues.default")
    assert "num_gpus" not in queue["overrides"] and queue["resources"]["num_gpus"] == 1


def test_the_suggested_partition_has_gpus_where_any_has() -> None:
    assert (found := suggested_partition(CLUSTER)) is not None
    assert found.name == "gpu"
    without = msgspec.structs.replace(CLUSTER, nodes=(node("c1", ("cpu",)),))
    assert (found := suggested_partition(without)) is not None
    assert found.name == "cpu"
    assert suggested_partition(msgspec.structs.replace(CLUSTER, partitions=())) is None


def test_a_machine_without_a_batch_system_gets_a_short_section(tmp_path: Path) -> None:
    local = SiteFacts("local", False, None, (), ())
    hpc = loaded(tmp_path, local, Choices(("mine",)))
    assert (hpc.scheduler, set(hpc.queues)) == ("local", {"mine"})
    assert "jobs run on this machine" in text(local)
    assert "scheduler gridengine" in text(SiteFacts("gridengine", True, None, (), ()))


@pytest.mark.parametrize("name", ["a${HOME}b", "}; x {", "# no comment", "ü", "include", "a.b", "a:b=c"])
def test_names_are_quoted(tmp_path: Path, name: str) -> None:
    assert set(loaded(tmp_path, choices=Choices((name,))).queues) == {name}
