"""sinfo, scontrol show partition, sacctmgr and sbatch --test-only, read as records. Texts are real ones."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from hpc_agent.domain.resources import Resources
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers.cluster import Account, ExpectedStart, GpuCount, NodeStatus, Partition
from hpc_agent.schedulers.slurm.cluster_answers import (
    parse_associations,
    parse_partitions,
    parse_qos,
    parse_sinfo,
    parse_test_only,
    resource_options,
)
from hpc_agent.schedulers.slurm.settings import SlurmSettings

D = "|d|"
HEAD = ("NODELIST", "PARTITION", "STATE", "CPUS(A/I/O/T)", "MEMORY", "ALLOCMEM", "GRES", "GRES_USED", "AVAIL_FEATURES")
HEADER = (*HEAD, "AVAIL", "TIMELIMIT")


def lines(*rows: tuple[str, ...]) -> str:
    return "".join("".join(f"{cell:<20}{D}" for cell in row) + "\n" for row in (HEADER, *rows))


def row(
    node: str = "n1",
    partition: str = "gpu",
    state: str = "mixed",
    gres: str = "gpu:a100:4",
    used: str = "gpu:a100:1(IDX:0)",
    limit: str = "2-00:00:00",
    available: str = "up",
) -> tuple[str, ...]:
    return (node, partition, state, "16/48/0/64", "512000", "128000", gres, used, "a100,ib", available, limit)


def the_node(*rows: tuple[str, ...]) -> NodeStatus:
    [node] = parse_sinfo(lines(*rows), D).nodes
    return node


def test_a_node_has_all_its_partitions_and_what_is_free_of_it() -> None:
    assert the_node(row(), row(partition="all*")) == NodeStatus(
        name="n1",
        partitions=("all", "gpu"),
        state="mixed",
        usable=True,
        cpus=64,
        cpus_free=48,
        memory_mb=512000,
        memory_mb_free=384000,
        gpus=(GpuCount("a100", 4, 3),),
        features=("a100", "ib"),
    )


def test_partitions_are_read_from_the_same_rows() -> None:
    rows = (row(partition="all*", limit="infinite"), row(), row(partition="old", available="down", limit="30:00"))
    assert parse_sinfo(lines(*rows), D).partitions == (
        Partition("all", default=True),
        Partition("gpu", time_limit=2880),
        Partition("old", takes_jobs=False, time_limit=30),
    )


@pytest.mark.parametrize(
    ("gres", "used", "counts"),
    [
        ("(null)", "gpu:0", ()),
        ("gpu:4", "gpu:1(IDX:2)", (GpuCount("", 4, 3),)),
        ("gpu:a100:4(S:0-1)", "gpu:a100:2(IDX:0,3)", (GpuCount("a100", 4, 2),)),
        (
            "gpu:a100:2(S:0),gpu:v100:4(S:1)",
            "gpu:a100:0(IDX:N/A),gpu:v100:4(IDX:0-3)",
            (GpuCount("a100", 2, 2), GpuCount("v100", 4, 0)),
        ),
        ("gpu:a100_1g.5gb:7", "gpu:a100_1g.5gb:6(IDX:0-5)", (GpuCount("a100_1g.5gb", 7, 1),)),
        ("gpu:nvidia_h100_80gb_hbm3:8(S:0-1),shard:16", "gpu:6(IDX:0-5)", (GpuCount("nvidia_h100_80gb_hbm3", 8, 2),)),
        ("gpu:8", "gpu:(null):3(IDX:0-2)", (GpuCount("", 8, 5),)),
        ("mps:gpu:100,gpu:2,craynetwork:4", "gpu:2(IDX:0-1)", (GpuCount("", 2, 0),)),
    ],
)
def test_gpus_are_counted_by_type_among_other_gres(gres: str, used: str, counts: tuple[GpuCount, ...]) -> None:
    assert the_node(row(gres=gres, used=used)).gpus == counts


@pytest.mark.parametrize("state", ["idle", "mixed", "allocated", "idle~", "mixed#", "planned", "idle-", "completing"])
def test_a_node_in_this_state_takes_jobs(state: str) -> None:
    assert the_node(row(state=state)).usable


@pytest.mark.parametrize(
    "state",
    [
        "down",
        "down*",
        "drained",
        "draining",
        "idle*",
        "mixed*",
        "reserved",
        "maint",
        "idle$",
        "idle@",
        "idle%",
        "unknown",
    ],
)
def test_a_node_in_this_state_takes_none(state: str) -> None:
    assert not the_node(row(state=state)).usable


def test_cells_that_cannot_be_read_cost_only_themselves() -> None:
    cells = ("n9", "gpu", "idle", "n/a", "x", "?", "gpu", "gpu:many", "(null)", "up", "n/a")
    node = the_node(cells)
    assert (node.cpus, node.memory_mb, node.gpus, node.features, node.usable) == (0, 0, (), (), True)


def test_no_rows_mean_no_nodes_and_no_table_means_no_answer() -> None:
    assert parse_sinfo(lines(), D).nodes == ()
    with pytest.raises(ValueError, match="Welcome"):
        parse_sinfo("Welcome to the cluster\n", D)


def test_limits_of_a_partition() -> None:
    text = (
        "Welcome\n"
        "PartitionName=gpu AllowGroups=ALL AllowAccounts=ml,bio AllowQos=long AllocNodes=ALL Default=YES QoS=N/A "
        "DefaultTime=01:00:00 Hidden=NO MaxNodes=4 MaxTime=2-00:00:00 RootOnly=NO State=UP JobDefaults=(null)\n"
        "PartitionName=old AllowAccounts=ALL AllowQos=ALL Default=NO DefaultTime=NONE MaxNodes=UNLIMITED "
        "MaxTime=UNLIMITED RootOnly=NO State=DRAIN\n"
    )
    assert parse_partitions(text) == (
        Partition("gpu", True, True, 2880, 60, 4, ("ml", "bio"), ("long",)),
        Partition("old", False, False),
    )


def test_accounts_of_this_cluster_with_their_qos_and_limits() -> None:
    text = (
        "ml|hpc|ml|gpu|normal,long|normal|10|||gres/gpu=8|\n"
        "ml|other|ml||normal|||||||\n"
        "ml|HPC|bio||normal||0|||||\n"
        "a line of a greeting\n"
    )
    # The eleventh cell of a shorter line is missing: it is not one of the table.
    assert parse_associations(text, "hpc") == (
        Account("ml", True, "gpu", ("normal", "long"), "normal", {"MaxJobs": "10", "MaxTRES": "gres/gpu=8"}),
    )


def test_qos_with_the_limits_that_they_have() -> None:
    assert parse_qos("normal||||||||0\nlong|7-00:00:00|gres/gpu=4|2|||||10\n") == {}
    assert parse_qos("normal|||||||0\nlong|7-00:00:00|gres/gpu=4|2||||10\n") == {
        "normal": {},
        "long": {"MaxWall": "7-00:00:00", "MaxTRESPU": "gres/gpu=4", "MaxJobsPU": "2", "Priority": "10"},
    }


@pytest.mark.parametrize(
    "words",
    [
        "sbatch: Job 7 to start at 1795724980 using 2 processors on nodes n[1-2] in partition main",  # 20.11 to 24.11
        "sbatch: Job 5 to start at 1795724980 a using 2 processors on nodes n[1-2] in partition main",  # 26.05
    ],
)
def test_when_and_where_a_job_would_start(words: str) -> None:
    expected = datetime.fromtimestamp(1795724980, timezone.utc)
    assert parse_test_only(0, "", f"greeting\n{words}\n") == ExpectedStart(expected, "n[1-2]")


def test_why_a_job_would_not_start() -> None:
    words = "sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition name specified\n"
    assert parse_test_only(1, "", words).refused == (
        "invalid partition specified: nope; Invalid partition name specified"
    )
    # What no list of refusals holds is a refusal too: nothing was submitted that may exist.
    assert parse_test_only(1, "", "sbatch: error: Please name a project\n").refused == "Please name a project"


def test_a_controller_that_does_not_answer_has_refused_nothing() -> None:
    words = "allocation failure: Unable to contact slurm controller (connect failure)\n"
    with pytest.raises(SchedulerUnavailableError, match="Unable to contact"):
        parse_test_only(1, "", words)
    with pytest.raises(SchedulerUnavailableError):
        parse_test_only(1, "", "")


def test_resources_are_asked_for_as_the_site_wants() -> None:
    site = SlurmSettings(gpu_flag="gpus-per-node", memory_flag="mem-per-cpu")
    wanted = Resources(2, 4, "a100", 8, 64 * 1024, 90, "gpu", "ml", "long")
    assert resource_options(wanted, site) == [
        *("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=8", "--time=01:30:00"),
        *("--partition=gpu", "--account=ml", "--qos=long", "--gpus-per-node=a100:4", "--mem-per-cpu=8192M"),
    ]
    assert resource_options(Resources(), SlurmSettings()) == ["--nodes=1", "--ntasks-per-node=1"]
