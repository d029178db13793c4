"""The section ``hpc`` that suits a site, as commented HOCON. Pure.

One setting a line, so that a later version of the text can be merged with the edits of the one that is there.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from hpc_agent.config.parse import origin
from hpc_agent.domain.resources import format_time_limit
from hpc_agent.schedulers.availability import by_partition, gpu_types, total_gpus
from hpc_agent.schedulers.cluster import Account, ClusterFacts, ClusterState, NodeStatus, Partition
from hpc_agent.setup.survey import SiteFacts

_WIDTH = 96
_LONGEST_DEFAULT = 24 * 60
"""Minutes of the time limit that is proposed where a partition has a longer one, or none."""


class Choices(msgspec.Struct, frozen=True):
    """What a person chose, or what was chosen for them."""

    queues: tuple[str, ...] = ("default",)
    partition: str = ""
    account: str = ""
    qos: str = ""
    root: str = ""
    """``hpc.root``; empty for the default."""
    cache_dir: str = ""


class SetElsewhere(msgspec.Struct, frozen=True):
    """Keys that another place sets, so that this text must not: a site's file below, or the rest of the same file."""

    tree: Mapping[str, Any] = msgspec.field(default_factory=dict)
    origins: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Dotted key → the place."""

    def place(self, path: Sequence[str]) -> str:
        """Empty: nothing sets this key or one below it."""
        node: Any = self.tree
        for part in path:
            if not isinstance(node, Mapping) or part not in node:
                return ""
            node = node[part]
        return origin(".".join(path), self.origins)


class _Text(msgspec.Struct):
    """Lines of HOCON, each key in its place."""

    elsewhere: SetElsewhere
    lines: list[str] = msgspec.field(default_factory=list)
    path: list[str] = msgspec.field(default_factory=lambda: ["hpc"])

    def comment(self, text: str) -> None:
        indent = "    " * len(self.path)
        self.lines += textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")

    def blank(self) -> None:
        self.lines.append("")

    def setting(self, name: str, value: str, *, active: bool = True) -> None:
        """``value`` is HOCON. One that is not active is a comment, to be taken in by hand."""
        place = self.elsewhere.place([*self.path, name])
        key = name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)
        line = f"{key} {value}" if value.startswith("{") else f"{key}: {value}"
        indent = "    " * len(self.path)
        self.lines.append(f"{indent}{line}" if active and not place else f"{indent}# {line}")
        if place:
            self.lines[-1] += f"    (set in {place})"

    def open(self, name: str) -> None:
        key = name if name.isidentifier() else json.dumps(name)
        self.lines.append(f"{'    ' * len(self.path)}{key} {{")
        self.path.append(name)

    def close(self) -> None:
        self.path.pop()
        self.lines.append(f"{'    ' * len(self.path)}}}")


def suggested_partition(facts: ClusterFacts) -> Partition | None:
    """Where jobs should go unless a user chooses otherwise: the default partition, or in a cluster with GPUs of which
    it has none, the one with the most."""
    usable = [partition for partition in facts.partitions if partition.allowed and partition.takes_jobs]
    state = ClusterState(tuple(usable), facts.nodes)
    rows = sorted(by_partition(state), key=lambda row: (not row.gpus.total, not row.partition.default, -row.gpus.total))
    return rows[0].partition if rows else None


def render(facts: SiteFacts, choices: Choices, elsewhere: SetElsewhere) -> list[str]:
    """The lines of the section, with what was found out as comments at their head."""
    text = _Text(elsewhere)
    text.lines += [*_head(facts), "hpc {"]
    text.setting("scheduler", facts.scheduler)
    _folders(text, facts, choices)
    if facts.cluster is not None:
        _dialect(text, facts.scheduler, facts.cluster)
    _containers(text, facts)
    _resources(text, facts.cluster, choices)
    _queues(text, facts.cluster, choices)
    text.lines.append("}")
    return text.lines


# ---------------------------------------------------------------- what was found out


def _head(facts: SiteFacts) -> list[str]:
    cluster = facts.cluster
    if cluster is None:
        return [f"# {facts.without_cluster}."]
    lines = [f"# {cluster.scheduler}, cluster {cluster.cluster}", "#", *_partition_table(cluster)]
    described = [
        *(f"Account {account}" for account in _accounts(cluster)),
        *(f"QOS {name}: {_pairs(limits)}" for name, limits in cluster.qos.items() if limits),
        _pairs(cluster.limits),
        *(f"{note[0].upper()}{note[1:]}" for note in cluster.notes),
        *(f"Not found out: {sentence}" for sentence in cluster.unanswered),
    ]
    wrapped = [
        line
        for sentence in filter(None, described)
        for line in textwrap.wrap(sentence, _WIDTH, initial_indent="# ", subsequent_indent="#   ")
    ]
    return [*lines, "#", *wrapped]


def _partition_table(cluster: ClusterFacts) -> list[str]:
    rows = [("PARTITION", "NODES", "CPUS", "GPUS", "TIME LIMIT", "MAX NODES", "ACCOUNTS")]
    for row in by_partition(ClusterState(cluster.partitions, cluster.nodes)):
        partition = row.partition
        name = partition.name + " *" * partition.default
        closed = "" if partition.allowed else " (not yours)"
        rows.append(
            (
                name + closed,
                str(row.nodes),
                str(row.cpus),
                _gpus(_members(cluster, partition)),
                "none" if partition.time_limit is None else format_time_limit(partition.time_limit),
                str(partition.max_nodes or ""),
                ", ".join(partition.accounts),
            )
        )
    columns = [index for index in range(len(rows[0])) if any(row[index] for row in rows[1:])]
    widths = {index: max(len(row[index]) for row in rows) for index in columns}
    return [("# " + "  ".join(row[index].ljust(widths[index]) for index in columns)).rstrip() for row in rows]


def _members(cluster: ClusterFacts, partition: Partition | None) -> list[NodeStatus]:
    return [node for node in cluster.nodes if partition is None or partition.name in node.partitions]


def _gpus(nodes: Iterable[NodeStatus]) -> str:
    nodes = list(nodes)
    counts = {
        kind: sum(gpu.total for node in nodes for gpu in node.gpus if gpu.kind == kind) for kind in gpu_types(nodes)
    }
    return ", ".join(f"{count} {kind or 'GPUs'}" for kind, count in counts.items())


def _accounts(cluster: ClusterFacts) -> list[str]:
    return [_account(account) for account in cluster.accounts]


def _account(account: Account) -> str:
    parts = [
        account.name + " (your default)" * account.default,
        f"in partition {account.partition}" if account.partition else "",
        f"QOS {' '.join(account.qos)}" if account.qos else "",
        _pairs(account.limits),
    ]
    return ", ".join(filter(None, parts))


def _pairs(limits: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in limits.items())


# ---------------------------------------------------------------- settings


def _folders(text: _Text, facts: SiteFacts, choices: Choices) -> None:
    text.blank()
    text.comment(
        "All of our files: run directories, caches, keys of jobs. Login and compute nodes must see it under this path; "
        "nobody else may write to it."
    )
    for folder in facts.folders:
        kind = "a network file system" if folder.shared else "not a network file system: do the nodes see it?"
        text.comment(f"{folder.path} ({folder.source}): {folder.file_system}, {kind}")
    text.setting("root", json.dumps(choices.root or "~/.clearml/hpc"), active=bool(choices.root))
    text.comment("Environments and repositories, some GiB; what is deleted there is built again.")
    text.setting("cache_dir", json.dumps(choices.cache_dir or "~/.clearml/hpc/cache"), active=bool(choices.cache_dir))
    if facts.cluster is not None and facts.cluster.local_scratch:
        text.comment("The nodes' own disk; by default what the job's TMPDIR names.")
        text.setting("scratch_dir", json.dumps(facts.cluster.local_scratch), active=False)


def _dialect(text: _Text, scheduler: str, cluster: ClusterFacts) -> None:
    if not cluster.settings:
        return
    text.blank()
    text.open(scheduler)
    for name, finding in sorted(cluster.settings.items()):
        text.comment(f"{finding.because}.")
        text.setting(name, finding.value)
    text.close()


def _containers(text: _Text, facts: SiteFacts) -> None:
    if not facts.container_runtimes:
        return
    text.blank()
    text.comment(
        f"Found on this machine: {', '.join(facts.container_runtimes)}. Tasks run in containers if you say so."
    )
    text.setting("container", f"{{ runtime: {facts.container_runtimes[0]} }}", active=False)


def _resources(text: _Text, cluster: ClusterFacts | None, choices: Choices) -> None:
    if cluster is None:
        return
    partition = _chosen(cluster, choices)
    text.blank()
    text.comment("What every job asks for, unless its queue or its task says otherwise.")
    text.open("resources")
    if choices.account or cluster.accounts:
        text.setting("account", choices.account or cluster.accounts[0].name, active=bool(choices.account))
    if choices.qos or any(account.qos for account in cluster.accounts):
        text.setting("qos", choices.qos or _default_qos(cluster), active=bool(choices.qos))
    limit = partition.time_limit if partition else None
    default = partition.default_time if partition else None
    if default is not None:
        text.comment(f"The partition's default is {format_time_limit(default)}.")
    minutes = default or min(limit or _LONGEST_DEFAULT, _LONGEST_DEFAULT)
    text.setting("time_limit", json.dumps(format_time_limit(minutes)), active=default is None)
    text.close()


def _default_qos(cluster: ClusterFacts) -> str:
    names = [account.default_qos or account.qos[0] for account in cluster.accounts if account.qos]
    return names[0]


def _chosen(cluster: ClusterFacts, choices: Choices) -> Partition | None:
    """The first of the chosen ones, ``a,b``, that is known."""
    names = choices.partition.split(",")
    return next((partition for partition in cluster.partitions if partition.name in names), None)


def _queues(text: _Text, cluster: ClusterFacts | None, choices: Choices) -> None:
    text.blank()
    text.comment(
        "One block for each ClearML queue: what its jobs ask for, and what the user properties of a task may change "
        "(hpc-task and the web page set them)."
    )
    text.open("queues")
    for queue in choices.queues:
        text.open(queue)
        if cluster is not None:
            _queue(text, cluster, choices)
        else:
            text.comment("For tasks that use one GPU each:")
            text.setting("resources", "{ num_gpus: 1 }", active=False)
        text.close()
    text.close()


def _queue(text: _Text, cluster: ClusterFacts, choices: Choices) -> None:
    partition = _chosen(cluster, choices)
    nodes = _members(cluster, partition)
    with_gpus = [node for node in nodes if node.gpus]
    text.open("resources")
    text.setting("partition", json.dumps(choices.partition), active=bool(choices.partition))
    text.setting("num_gpus", "1" if with_gpus else "0")
    if share := _share(with_gpus):
        cpus, memory = share
        text.comment("A GPU's share of a node.")
        text.setting("num_cpus", str(cpus))
        if memory:
            text.setting("memory_gb", str(memory))
    text.close()
    _overrides(text, cluster, choices, nodes)
    if (most := _most_jobs(cluster)) is not None:
        text.comment("Your limit of jobs that wait or run.")
        text.setting("max_jobs", str(most))


def _share(nodes: Sequence[NodeStatus]) -> tuple[int, int] | None:
    """CPUs and GiB of memory for each GPU where that is least; a tenth of the memory is left to the system."""
    if not nodes:
        return None
    cpus = min(node.cpus // total_gpus(node) for node in nodes)
    memory = min(int(node.memory_mb * 0.9 / 1024 / total_gpus(node)) for node in nodes)
    return max(cpus, 1), memory


def _overrides(text: _Text, cluster: ClusterFacts, choices: Choices, nodes: Sequence[NodeStatus]) -> None:
    partition = _chosen(cluster, choices)
    names = [each.name for each in cluster.partitions if each.allowed and each.takes_jobs]
    types = [kind for kind in gpu_types(nodes) if kind]
    limit = partition.time_limit if partition else None
    text.open("overrides")
    if any(node.gpus for node in nodes):
        text.setting("num_gpus", f"{{ max: {max(map(total_gpus, nodes))} }}")
    if types:
        text.setting("gpu_type", f"{{ choices: {json.dumps(types)} }}")
    text.setting("num_cpus", f"{{ max: {max((node.cpus for node in nodes), default=1)} }}")
    memory = max((node.memory_mb // 1024 for node in nodes), default=0)
    text.setting("memory_gb", f"{{ max: {memory} }}" if memory else "{}")
    text.setting("time_limit", "{}" if limit is None else f"{{ max: {json.dumps(format_time_limit(limit))} }}")
    if names:
        text.setting("partition", f"{{ choices: {json.dumps(names)} }}")
    if len({account.name for account in cluster.accounts}) > 1:
        choices_of = list(dict.fromkeys(account.name for account in cluster.accounts))
        text.setting("account", f"{{ choices: {json.dumps(choices_of)} }}", active=False)
    text.close()


def _most_jobs(cluster: ClusterFacts) -> int | None:
    """The user's smallest limit of submitted jobs, over the accounts and their default QOS."""
    words = [account.limits.get("MaxSubmit", "") for account in cluster.accounts]
    words += [cluster.qos.get(account.default_qos, {}).get("MaxSubmitPU", "") for account in cluster.accounts]
    return min((int(word) for word in words if word.isdigit()), default=None)
