"""What kind of site this Slurm is: version, partitions, GPUs, accounts, limits, and how resources are asked for.

Some ten requests to the controller and two to accounting; for a person who sets something up, not for every pass.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from hpc_agent.access import user_name
from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.process import programs
from hpc_agent.schedulers.cluster import Account, ClusterFacts, Finding, Partition, UserLimits
from hpc_agent.schedulers.slurm import cluster_answers as answers
from hpc_agent.schedulers.slurm.answers import parse_config
from hpc_agent.schedulers.slurm.cluster_client import SlurmClusterClient
from hpc_agent.schedulers.slurm.commands import show_config
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.schedulers.slurm.versions import notes, parse_version

_LIMITS = ("MaxArraySize", "MaxJobCount", "MinJobAge", "KillWait", "EnforcePartLimits")
_HELP_S = 10.0
_GPU_SPELLINGS = ("gres", "gpus-per-node", "gpus")
"""In the order of preference: the oldest is accepted by most sites."""
_MEMORY_SPELLINGS = ("mem", "mem-per-cpu")
_MEANING = {"gpu_flag": "how GPUs are asked for", "memory_flag": "how memory is asked for"}


def discover(
    client: SlurmClusterClient,
    settings: SlurmSettings,
    report: Callable[[str], None],
    *,
    cluster: str = "",
    partition: str = "",
    account: str = "",
) -> ClusterFacts:
    """See ``schedulers.cluster.ClusterClient.discover``."""
    report("version and limits (scontrol show config)")
    config = parse_config(client.ask(show_config()))
    version = parse_version(config.get("SLURM_VERSION", ""))
    name = cluster or config.get("ClusterName", "")
    facts = ClusterFacts(
        scheduler=f"Slurm {version or 'of unknown version'}",
        cluster=name,
        accounting=config.get("AccountingStorageType", "").endswith("slurmdbd"),
        limits={key: config[key] for key in _LIMITS if key in config},
        container_runtimes=_runtimes(),
        local_scratch=_local_scratch(config),
        periodic_jobs="enable" in re.split(r"[,\s]", config.get("ScronParameters", "")),
        notes=tuple(notes(version, config)),
    )
    report("nodes (sinfo)")
    state = client.state()
    facts = _with_accounts(client, replace(facts, nodes=state.nodes), report)
    report("partitions (scontrol show partition)")
    try:
        partitions = answers.parse_partitions(client.ask(answers.show_partitions()))
    except SchedulerUnavailableError as error:
        facts = _unanswered(facts, f"the limits of the partitions are not known: {error}")
        partitions = tuple(
            Partition(name) for name in dict.fromkeys(p for node in facts.nodes for p in node.partitions)
        )
    facts = replace(facts, partitions=tuple(_with_permission(each, facts.accounts) for each in partitions))
    # Names that are not known here would only be refused.
    if partition not in {each.name for each in facts.partitions}:
        partition = ""
    if account not in {each.name for each in facts.accounts}:
        account = ""
    found, unanswered = _Spellings(client, facts, report, partition, account).find()
    accounting = Finding(
        "sacct" if facts.accounting else "none", f"AccountingStorageType is {config.get('AccountingStorageType')}"
    )
    return replace(
        facts,
        settings={**found, "accounting": accounting},
        unanswered=(*facts.unanswered, *unanswered),
    )


def _unanswered(facts: ClusterFacts, sentence: str) -> ClusterFacts:
    return replace(facts, unanswered=(*facts.unanswered, sentence))


def _with_accounts(client: SlurmClusterClient, facts: ClusterFacts, report: Callable[[str], None]) -> ClusterFacts:
    if not facts.accounting:
        return facts
    report("accounts and QOS (sacctmgr)")
    try:
        limits = user_limits(client, facts.cluster)
    except SchedulerUnavailableError as error:
        return _unanswered(facts, f"your accounts and QOS are not known: {error}")
    if not limits.accounts:
        facts = _unanswered(facts, f"accounting knows no account of {user_name()} on this cluster")
    return replace(facts, accounts=limits.accounts, qos=limits.qos)


def user_limits(client: SlurmClusterClient, cluster: str) -> UserLimits:
    """See ``schedulers.cluster.ClusterClient.user_limits``; the site must have accounting."""
    accounts = answers.parse_associations(client.ask(answers.show_associations(user_name())), cluster)
    names = tuple(dict.fromkeys(qos for account in accounts for qos in account.qos))
    return UserLimits(accounts, answers.parse_qos(client.ask(answers.show_qos(names))) if names else {})


def _with_permission(partition: Partition, accounts: Sequence[Account]) -> Partition:
    """Groups need no look: partitions that they close are not shown to us."""
    usable = [a for a in accounts if a.partition in ("", partition.name)]
    by_account = not partition.accounts or not accounts or any(a.name in partition.accounts for a in usable)
    qos = {name for account in usable for name in account.qos}
    by_qos = not partition.qos or not qos or bool(qos & set(partition.qos))
    return replace(partition, allowed=by_account and by_qos)


def _local_scratch(config: Mapping[str, str]) -> str:
    """TmpFS is what a job sees as the node's own disk; ``%h`` and ``%n`` stand for the node."""
    folder = config.get("TmpFS", "")
    return folder if folder.startswith("/") and folder != "/tmp" and "%" not in folder else ""  # noqa: S108


def _runtimes() -> tuple[str, ...]:
    """pyxis is a plugin that adds an option to srun."""
    if shutil.which("srun") is None:
        return ()
    try:
        offered = programs.run(["srun", "--help"], timeout=_HELP_S).stdout
    except ProcessError:
        return ()
    return ("pyxis",) if "--container-image" in offered else ()


class _Spellings(msgspec.Struct):
    """Tries out how this site wants GPUs and memory asked for; what it accepts first is the finding."""

    client: SlurmClusterClient
    facts: ClusterFacts
    report: Callable[[str], None]
    partition: str
    account: str

    def find(self) -> tuple[dict[str, Finding], tuple[str, ...]]:
        """Settings of the section, and what could not be found out."""
        found: dict[str, Finding] = {}
        unanswered = []
        searches = [("memory_flag", self._memory_attempts())]
        where = self._gpu_partition()
        if where is not None:
            searches.append(("gpu_flag", self._gpu_attempts(where)))
        for key, attempts in searches:
            try:
                finding, refusal = self._first_accepted(attempts)
            except SchedulerUnavailableError as error:
                unanswered.append(f"{_MEANING[key]}: {error}")
                continue
            if finding is not None:
                found[key] = finding
            else:
                unanswered.append(f"{_MEANING[key]}: sbatch --test-only refuses every spelling ({refusal})")
        return found, tuple(unanswered)

    def _first_accepted(self, attempts: Iterator[tuple[str, list[str], str]]) -> tuple[Finding | None, str]:
        """The finding, or the words of the first refusal."""
        refusal = ""
        for value, basis, shown in attempts:
            self.report(f"how resources are asked for (sbatch --test-only {shown})")
            answer = self.client.try_out([*basis, shown])
            if not answer.refused:
                return Finding(value, f"sbatch --test-only accepts {shown}"), ""
            refusal = refusal or f"{shown}: {answer.refused}"
        return None, refusal

    def _basis(self, partition: str) -> list[str]:
        """Many sites refuse a job without a time limit."""
        return [
            "--time=1",
            *([f"--partition={partition}"] if partition else []),
            *([f"--account={self.account}"] if self.account else []),
        ]

    def _memory_attempts(self) -> Iterator[tuple[str, list[str], str]]:
        """Value of the setting, options that any job needs, the option that is tried out."""
        for flag in _MEMORY_SPELLINGS:
            yield flag, self._basis(self.partition), f"--{flag}=100M"

    def _gpu_attempts(self, where: tuple[str, str]) -> Iterator[tuple[str, list[str], str]]:
        partition, kind = where
        # Some sites demand the type.
        for typed in ("", *([f"{kind}:"] if kind else [])):
            for flag in _GPU_SPELLINGS:
                name = "gpu:" if flag == "gres" else ""
                yield flag, self._basis(partition), f"--{flag}={name}{typed}1"

    def _gpu_partition(self) -> tuple[str, str] | None:
        """A partition with GPUs that this user may use, and a type that it has: the one asked for, the site's default,
        or any."""
        usable = {p.name for p in self.facts.partitions if p.allowed and p.takes_jobs}
        default = {p.name for p in self.facts.partitions if p.default}
        with_gpus = [node for node in self.facts.nodes if node.gpus]
        for names in ({self.partition}, default & usable, usable):
            for node in with_gpus:
                if found := [name for name in node.partitions if name in names]:
                    return found[0], node.gpus[0].kind
        return None
