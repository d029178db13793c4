"""Slurm's commands about a cluster as a whole, as argument lists, and what they print as records. Pure.

Checked on Slurm 20.11, 22.05 and 26.05.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from msgspec.structs import replace

from hpc_agent.domain import duration
from hpc_agent.domain.job import LimitReached, OutcomeUnknown, Refused, UnclearAnswer
from hpc_agent.domain.resources import Resources, format_time_limit
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers.cluster import Account, ClusterState, ExpectedStart, GpuCount, NodeStatus, Partition
from hpc_agent.schedulers.slurm.answers import WOULD_START, time
from hpc_agent.schedulers.slurm.delimited_table import read_table
from hpc_agent.schedulers.slurm.sbatch_answers import parse_sbatch
from hpc_agent.schedulers.slurm.script import gpu_flag, memory_flag
from hpc_agent.schedulers.slurm.settings import SlurmSettings

# ---------------------------------------------------------------- sinfo

_NODE_COLUMNS: Mapping[str, int] = {
    "NodeList": 64,
    "Partition": 64,
    "StateLong": 24,
    "CPUsState": 32,
    "Memory": 16,
    "AllocMem": 16,
    "Gres": 256,
    "GresUsed": 256,
    "Features": 128,
    "Available": 12,
    "Time": 24,
}
"""Each with the width at which sinfo cuts it."""
_TAKES_JOBS = ("idle", "mixed", "allocated", "completing", "planned")
"""States in which a node's free resources can be had. ``planned`` (22.05 on) waits for a larger job, and takes those
that end before it starts."""
_NO_JOBS_NOW = ("*", "!", "%", "@", "^", "$")
"""Suffix of a state: not responding, about to power down, powering down, about to reboot, rebooting, in maintenance.
``~`` and ``#`` (powered down, powering up) take jobs, and ``-`` is another sign for ``planned``."""


def sinfo(delimiter: str) -> list[str]:
    """A row for each node of each partition that the user's groups may see."""
    columns = ",".join(f"{column}:{width}{delimiter}" for column, width in _NODE_COLUMNS.items())
    return ["sinfo", "--Node", f"--Format={columns}"]


def parse_sinfo(text: str, delimiter: str) -> ClusterState:
    """Partitions by name: sinfo has no order of its own.

    Raises:
        ValueError: this is not what sinfo prints.
    """
    table = read_table(text, len(_NODE_COLUMNS), delimiter)
    if table is None:
        raise ValueError(text.strip()[:200] or "nothing")
    members: dict[str, list[str]] = defaultdict(list)
    nodes: dict[str, NodeStatus] = {}
    partitions: dict[str, Partition] = {}
    for cells in table.rows:
        if cells[0].upper() != "NODELIST":
            name = cells[1].removesuffix("*")
            members[cells[0]].append(name)
            if cells[0] not in nodes:
                nodes[cells[0]] = _node(cells)
            if name not in partitions:
                partitions[name] = _seen_partition(cells)
    return ClusterState(
        tuple(partitions[name] for name in sorted(partitions)),
        tuple(replace(node, partitions=tuple(sorted(members[name]))) for name, node in nodes.items()),
    )


def _seen_partition(cells: Sequence[str]) -> Partition:
    return Partition(
        name=cells[1].removesuffix("*"),
        default=cells[1].endswith("*"),
        takes_jobs=cells[-2] == "up",
        time_limit=_minutes(cells[-1]),
    )


def _node(cells: Sequence[str]) -> NodeStatus:
    name, _, state, cpus, memory, granted, gres, used, features = cells[:9]
    counts = [int(count) for count in cpus.split("/")] if re.fullmatch(r"\d+/\d+/\d+/\d+", cpus) else [0, 0, 0, 0]
    installed = _number(memory)
    return NodeStatus(
        name=name,
        partitions=(),
        state=state,
        usable=state.rstrip("*~#!%$@^-+") in _TAKES_JOBS and not state.endswith(_NO_JOBS_NOW),
        cpus=counts[3],
        cpus_free=counts[1],
        memory_mb=installed,
        memory_mb_free=max(installed - _number(granted), 0),
        gpus=_gpus(gres, used),
        features=tuple(word for word in re.split(r"[,&|]", features) if word and word != "(null)"),
    )


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0


_GRES = re.compile(r"(?:^|,)gpu(?::(?P<kind>[^:,]*)(?=:))?:(?P<count>[0-9]{1,6})(?P<thousands>[kK]?)(?=,|$)")
"""``gpu:4``, ``gpu:a100:4(S:0-1)``, ``gpu:a100:2(IDX:0,3)``. Other kinds (shard, mps) may be in the same list."""


def _gpus(gres: str, used: str) -> tuple[GpuCount, ...]:
    totals, granted = dict(_counts(gres)), dict(_counts(used))
    if len(totals) == 1:
        # Some versions leave the type out of what is used.
        granted = dict.fromkeys(totals, sum(granted.values()))
    return tuple(GpuCount(kind, total, max(total - granted.get(kind, 0), 0)) for kind, total in totals.items())


def _counts(gres: str) -> Iterator[tuple[str, int]]:
    # Parentheses hold commas of their own, and stand for a type that is not set: gpu:(null):0(IDX:N/A).
    for match in _GRES.finditer(re.sub(r"\([^)]*\)", "", gres)):
        yield match["kind"] or "", int(match["count"]) * (1024 if match["thousands"] else 1)


# ---------------------------------------------------------------- scontrol show partition


def show_partitions() -> list[str]:
    return ["scontrol", "show", "partition", "--oneliner"]


def parse_partitions(text: str) -> tuple[Partition, ...]:
    """Other lines are passed over."""
    rows = (dict(re.findall(r"(\w+)=(\S*)", line)) for line in text.splitlines() if "PartitionName=" in line)
    return tuple(_partition(row) for row in rows if row.get("PartitionName"))


def _partition(row: Mapping[str, str]) -> Partition:
    return Partition(
        name=row["PartitionName"],
        default=row.get("Default") == "YES",
        takes_jobs=row.get("State", "UP") == "UP" and row.get("RootOnly", "NO") == "NO",
        time_limit=_minutes(row.get("MaxTime", "")),
        default_time=_minutes(row.get("DefaultTime", "")),
        max_nodes=_number(row.get("MaxNodes", "")) or None,
        accounts=_names(row.get("AllowAccounts", "ALL")),
        qos=_names(row.get("AllowQos", "ALL")),
    )


def _names(text: str) -> tuple[str, ...]:
    return () if text in ("ALL", "", "(null)", "N/A") else tuple(text.split(","))


def _minutes(text: str) -> int | None:
    found = duration.seconds(text)
    return None if found is None else -(-found // 60)


# ---------------------------------------------------------------- sacctmgr

_ASSOCIATION = ("DefaultAccount", "Cluster", "Account", "Partition", "QOS", "DefaultQOS")
_OWN_LIMITS = ("MaxJobs", "MaxSubmit", "MaxWall", "MaxTRES", "GrpTRES")
_QOS_LIMITS = ("MaxWall", "MaxTRESPU", "MaxJobsPU", "MaxSubmitPU", "MaxTRES", "GrpTRES", "Priority")


def show_associations(user: str) -> list[str]:
    fields = ",".join((*_ASSOCIATION, *_OWN_LIMITS))
    return ["sacctmgr", "--noheader", "--parsable2", "show", "user", user, "withassoc", f"format={fields}"]


def parse_associations(text: str, cluster: str) -> tuple[Account, ...]:
    """Of this cluster only, for a slurmdbd serves several; the default account first."""
    found = []
    for cells in _cells(text, len(_ASSOCIATION) + len(_OWN_LIMITS)):
        default, where, account, partition, qos, default_qos = cells[: len(_ASSOCIATION)]
        if account and where.lower() == cluster.lower():
            limits = _set(_OWN_LIMITS, cells[len(_ASSOCIATION) :])
            names = tuple(filter(None, qos.split(",")))
            found.append(Account(account, account == default, partition, names, default_qos, limits))
    return tuple(sorted(found, key=lambda each: (not each.default, each.name, each.partition)))


def show_qos(names: Sequence[str]) -> list[str]:
    fields = f"format=Name,{','.join(_QOS_LIMITS)}"
    return ["sacctmgr", "--noheader", "--parsable2", "show", "qos", "where", f"name={','.join(names)}", fields]


def parse_qos(text: str) -> dict[str, Mapping[str, str]]:
    """QOS → its limits."""
    return {cells[0]: _set(_QOS_LIMITS, cells[1:]) for cells in _cells(text, len(_QOS_LIMITS) + 1) if cells[0]}


def _cells(text: str, columns: int) -> Iterator[list[str]]:
    """Lines with as many cells; a site's greeting has others."""
    return (cells for line in text.splitlines() if len(cells := line.strip().split("|")) == columns)


def _set(names: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    return {name: cell for name, cell in zip_longest(names, cells) if cell and cell != "0"}


# ---------------------------------------------------------------- sbatch --test-only


def resource_options(resources: Resources, site: SlurmSettings) -> list[str]:
    """As ``base.sbatch.j2`` and ``gpu.sbatch.j2`` ask, on the command line."""
    limit = None if resources.time_minutes is None else format_time_limit(resources.time_minutes)
    named = {
        "nodes": str(resources.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": None if resources.cpus is None else str(resources.cpus),
        "time": limit,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "reservation": resources.reservation,
        "exclude": resources.exclude,
    }
    flags = [gpu_flag(resources, site), memory_flag(resources, site)]
    return [*(f"--{name}={value}" for name, value in named.items() if value), *filter(None, flags)]


def parse_test_only(returncode: int, stdout: str, stderr: str) -> ExpectedStart:
    """
    Raises:
        SchedulerUnavailableError: the controller gave no answer.
    """
    match = WOULD_START.search(stderr) or WOULD_START.search(stdout)
    if returncode == 0:
        return ExpectedStart(time(match["start"]), match["nodes"] or "") if match else ExpectedStart()
    answer = parse_sbatch(returncode, stdout, stderr)
    silent = not (stdout + stderr).strip()
    no_answer = silent or (isinstance(answer, OutcomeUnknown) and answer.doubt is UnclearAnswer.NO_ANSWER)
    if no_answer or not isinstance(answer, (Refused, LimitReached, OutcomeUnknown)):
        raise SchedulerUnavailableError(f"sbatch --test-only gave no answer: {getattr(answer, 'message', answer)}")
    # The last part is Slurm's verdict; sbatch's own words before it say what of the job it is about.
    parts = [part.removeprefix("allocation failure: ") for part in answer.message.split("; ")]
    return ExpectedStart(refused="; ".join(dict.fromkeys(parts)))
