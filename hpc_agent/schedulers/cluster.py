"""A cluster as a whole, for the people who use it: its partitions and nodes, what is free, when a job would start.

Plain records without a scheduler's own words; ``Backend.cluster_client`` gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from hpc_agent.domain.resources import Resources


class GpuCount(msgspec.Struct, frozen=True):
    """The GPUs of one type on one node."""

    kind: str
    """As the site names it (``a100``); empty where it has no types."""
    total: int
    free: int
    """Not granted to any job, whether or not the node takes new jobs."""


class NodeStatus(msgspec.Struct, frozen=True):
    """One node at one moment. Amounts that are free count only where the node takes jobs: see ``usable``."""

    name: str
    partitions: tuple[str, ...]
    state: str
    """In the scheduler's own word: ``idle``, ``drained*``."""
    usable: bool
    """Whether a job could start there now."""
    cpus: int
    cpus_free: int
    memory_mb: int
    memory_mb_free: int
    """Not granted to any job; what programs outside of jobs use is not counted."""
    gpus: tuple[GpuCount, ...] = ()
    features: tuple[str, ...] = ()


class Partition(msgspec.Struct, frozen=True):
    """One partition and its limits. None and ``()``: no limit."""

    name: str
    default: bool = False
    takes_jobs: bool = True
    time_limit: int | None = None
    """The longest that a job may ask for, in minutes."""
    default_time: int | None = None
    """What a job gets that asks for no time, in minutes; None: the time limit."""
    max_nodes: int | None = None
    accounts: tuple[str, ...] = ()
    """The only accounts that may use it."""
    qos: tuple[str, ...] = ()
    """The only QOS that may use it."""
    allowed: bool = True
    """Whether this user may submit to it, as far as accounts show."""


class ClusterState(msgspec.Struct, frozen=True):
    """What there is, and how much of it is free, at one moment. Partitions have their time limits only."""

    partitions: tuple[Partition, ...]
    nodes: tuple[NodeStatus, ...]


class Account(msgspec.Struct, frozen=True):
    """An account that this user may charge."""

    name: str
    default: bool = False
    partition: str = ""
    """The only partition in which it holds for this user; empty for all."""
    qos: tuple[str, ...] = ()
    default_qos: str = ""
    limits: Mapping[str, str] = msgspec.field(default_factory=dict)
    """This user's limits, in the scheduler's words: ``MaxJobs`` → ``10``."""


class UserLimits(msgspec.Struct, frozen=True):
    """What this user may charge and ask for, with the limits; empty where there is no accounting."""

    accounts: tuple[Account, ...] = ()
    qos: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)
    """QOS that this user may ask for → its limits, in the scheduler's words."""


class Finding(msgspec.Struct, frozen=True):
    """A setting that suits this cluster, and the evidence for it in a sentence."""

    value: str
    because: str


class ClusterFacts(msgspec.Struct, frozen=True):
    """What discovery found out. What had no answer is left empty, and named in ``unanswered``."""

    scheduler: str
    """With its version: ``Slurm 22.05.8``."""
    cluster: str
    partitions: tuple[Partition, ...] = ()
    nodes: tuple[NodeStatus, ...] = ()
    accounts: tuple[Account, ...] = ()
    qos: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)
    """QOS that this user may ask for → its limits, in the scheduler's words."""
    accounting: bool = False
    limits: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Limits of the whole cluster that matter here, by the scheduler's names: ``MaxArraySize`` → ``1001``."""
    settings: Mapping[str, Finding] = msgspec.field(default_factory=dict)
    """Keys of the backend's own section that were found out: ``gpu_flag``."""
    container_runtimes: tuple[str, ...] = ()
    """Those that the scheduler itself brings."""
    local_scratch: str = ""
    """The nodes' own folder for temporary files, if it is not /tmp."""
    periodic_jobs: bool = False
    """Whether ``ClusterClient.periodic_job`` works here."""
    notes: tuple[str, ...] = ()
    """What follows for those who serve queues, a sentence each."""
    unanswered: tuple[str, ...] = ()
    """Questions without an answer, a sentence each."""


class ExpectedStart(msgspec.Struct, frozen=True):
    """When a job of some size would start, if it were submitted now; or why it never would."""

    start: datetime | None = None
    """None: it is refused, or the time is not known yet."""
    nodes: str = ""
    refused: str = ""
    """The scheduler's words."""


class ClusterClient(Protocol):
    """Questions about a cluster as a whole. Each may cost the site's controller a request."""

    def discover(self, report: Callable[[str], None], partition: str = "", account: str = "") -> ClusterFacts:
        """Everything that matters for a configuration.

        ``report`` gets each step. ``partition``, ``account``: where to try out how resources are asked for.

        Raises:
            SchedulerUnavailableError: the controller does not answer.
        """

    def state(self) -> ClusterState:
        """The partitions that this user may see, and their nodes, in one request.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """

    def expected_start(self, resources: Resources) -> ExpectedStart:
        """One request; nothing is submitted. An empty partition is the site's default one.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """

    def user_limits(self) -> UserLimits:
        """Some requests: to the controller, and to accounting where there is one.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """

    def periodic_job(self, command: str, resources: Resources) -> str:
        """Lines for the scheduler's own kind of crontab that run ``command`` every five minutes."""
