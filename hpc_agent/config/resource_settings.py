"""Resource requests of jobs, and limits of tasks' own requests: the blocks ``resources`` and ``queues`` of the section
``hpc``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from hpc_agent.config.types import Count, Positive, Seconds, SettingsGroup
from hpc_agent.domain.launch_plan import parse_launcher
from hpc_agent.domain.pilot_slots import fits
from hpc_agent.domain.resources import (
    DEFAULT_OVERRIDES,
    PROPERTY_FIELDS,
    Override,
    Policy,
    Resources,
    memory_mb,
    parse_time_limit,
)
from hpc_agent.errors import ResourceError


class ResourceSettings(SettingsGroup, frozen=True, kw_only=True):
    """A ``resources`` block, of the site or of a queue; a queue's fields beat the site's."""

    num_nodes: Annotated[Positive | None, Meta(description="Nodes per job.")] = None
    num_gpus: Annotated[Count | None, Meta(description="GPUs per node.")] = None
    gpu_type: Annotated[str | None, Meta(description="GPU type, as the site's GRES names it (`a100`).")] = None
    num_cpus: Annotated[Positive | None, Meta(description="CPUs per task.")] = None
    memory_gb: Annotated[Annotated[float, Meta(gt=0)] | None, Meta(description="Memory per node in GiB.")] = None
    time_limit: Annotated[str | int | None, Meta(description="Time limit: minutes or `D-HH:MM:SS`; 0: unlimited.")] = (
        None
    )
    partition: Annotated[str | None, Meta(description="Partition, or several with commas.")] = None
    account: Annotated[str | None, Meta(description="Account to charge.")] = None
    qos: Annotated[str | None, Meta(description="Quality of service.")] = None
    constraint: Annotated[str | None, Meta(description="Node features.")] = None
    reservation: Annotated[str | None, Meta(description="Reservation.")] = None
    exclude: Annotated[str | None, Meta(description="Nodes not to use.")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time_limit is not None:
            parse_time_limit(str(self.time_limit))
        if self.memory_gb is not None and not (math.isfinite(self.memory_gb) and memory_mb(self.memory_gb)):
            raise ResourceError(f"memory_gb is {self.memory_gb}, expected GiB that make a whole MiB at least")
        for name in ("gpu_type", "partition", "account", "qos", "constraint", "reservation", "exclude"):
            text = getattr(self, name) or ""
            if re.search(r"[\s'\"]", text):
                raise ResourceError(f'{name} is "{text}", expected a name without spaces or quotes')

    def over(self, base: Resources) -> Resources:
        """``base`` with the fields that are set here."""
        pairs: dict[str, object] = {
            "nodes": self.num_nodes,
            "gpus": self.num_gpus,
            "gpu_type": self.gpu_type,
            "cpus": self.num_cpus,
            "memory_mb": None if self.memory_gb is None else memory_mb(self.memory_gb),
            "time_minutes": None if self.time_limit is None else parse_time_limit(str(self.time_limit)),
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "reservation": self.reservation,
            "exclude": self.exclude,
        }
        return replace(base, **{k: v for k, v in pairs.items() if v is not None})


class OverrideSettings(SettingsGroup, frozen=True, kw_only=True):
    """Bounds and choices for one resource property of tasks."""

    min: Annotated[
        float | None,
        Meta(
            description="Smallest amount (GiB for memory, minutes for time). What schedulers read as no limit, such as "
            "0 GiB or 0 minutes, is refused in any case, unless it is among `choices`."
        ),
    ] = None
    max: Annotated[float | str | None, Meta(description="Largest amount; for time_limit also `D-HH:MM:SS`.")] = None
    choices: Annotated[tuple[str, ...] | None, Meta(description="The values allowed.")] = None

    def rule(self, name: str) -> Override:
        """
        Raises:
            ResourceError: a bound of property ``name`` is not an amount, or the two leave nothing between them.
        """
        most = _amount(name, self.max) if isinstance(self.max, str) else self.max
        for word, bound in (("min", self.min), ("max", most)):
            if bound is not None and not math.isfinite(bound):
                raise ResourceError(f"overrides.{name}.{word} is {bound}, expected a number; leave it out for no bound")
        if self.min is not None and most is not None and self.min > most:
            raise ResourceError(f"overrides.{name} allows nothing: min is {self.min:g} and max {most:g}")
        return Override(self.min, most, self.choices)


def _amount(name: str, text: str) -> float:
    if name == "time_limit":
        return parse_time_limit(text)
    try:
        return float(text)
    except ValueError as error:
        raise ResourceError(f'overrides.{name}.max is "{text}", expected a number') from error


class PilotSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.queues.<name>.pilot``: jobs that run many tasks of the queue in one allocation each."""

    resources: Annotated[
        ResourceSettings,
        Meta(
            description="What one pilot asks for, on one node; what is not set is as for one task. Its `time_limit` "
            "must be set: no task starts in it whose own limit is longer than the time that is left."
        ),
    ] = ResourceSettings()
    max_pilots: Annotated[Positive, Meta(description="Pilots of this queue in the scheduler at once.")] = 1
    idle_time: Annotated[Seconds, Meta(description="Seconds without a task after which a pilot ends.")] = 60


class QueueSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.queues.<name>``: how tasks of one queue become jobs."""

    template: Annotated[
        str, Meta(description="Job template: a name, or a path; the scheduler's own for GPUs when empty.")
    ] = ""
    resources: Annotated[ResourceSettings, Meta(description="What a job of this queue asks for.")] = ResourceSettings()
    overrides: Annotated[
        dict[str, OverrideSettings] | None,
        Meta(
            description="User properties that a task may set, with `min`, `max` or `choices` each.",
            extra={"keys": tuple(PROPERTY_FIELDS)},
        ),
    ] = None
    max_jobs: Annotated[Positive | None, Meta(description="Jobs of this queue in the scheduler at once.")] = None
    mode: Annotated[
        Literal["job", "pilot"],
        Meta(
            description="job: each task is a job of its own; pilot: jobs that run many tasks each, for many short "
            "tasks (docs/many-tasks.md)."
        ),
    ] = "job"
    pilot: Annotated[PilotSettings, Meta(description="The pilots of a queue in the mode `pilot`.")] = PilotSettings()
    share_by: Annotated[
        Literal["", "user", "project"],
        Meta(
            description="Whose tasks of this queue take turns: those of the ClearML user, or project, with the fewest "
            "jobs go first. Empty: the order of the queue alone."
        ),
    ] = ""
    launcher: Annotated[
        str | None, Meta(description="What starts the ranks of this queue's tasks on many nodes; as the site's.")
    ] = None
    signal_ahead: Annotated[
        Seconds,
        Meta(
            description="How long before its job's time limit a task gets SIGTERM (a quarter of the limit at most); "
            "0: only at the limit itself."
        ),
    ] = 60
    signal: Annotated[
        Literal["TERM", "INT", "HUP", "USR1", "USR2", "QUIT"],
        Meta(description="The signal that tells it; SIGKILL follows shortly before the limit."),
    ] = "TERM"
    on_time_limit: Annotated[
        Literal["fail", "requeue"],
        Meta(description="What becomes of a task that met its time limit: requeue lets it go on in another start."),
    ] = "fail"
    max_restarts: Annotated[
        Count,
        Meta(
            description="How often a task is started again after a time limit, a failed node, a failed launch, or a "
            "preemption after which the scheduler does not start it again itself."
        ),
    ] = 3

    shared: Annotated[
        bool,
        Meta(
            description="Daemons of other clusters serve this queue too: a task that this cluster cannot run stays for "
            "them, and the messages of waiting tasks name the cluster."
        ),
    ] = False
    head_start: Annotated[
        Seconds,
        Meta(
            description="Seconds for which a task is left to the other clusters of a shared queue at most: as long as "
            "it would wait here, by the scheduler's estimate. 0: submitted at once."
        ),
    ] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_start and not self.shared:
            raise ResourceError("head_start leaves tasks to other clusters: set shared to true too, or remove it")
        self._rules()
        if self.launcher is not None:
            parse_launcher(self.launcher, "launcher")

    def policy(self, queue: str, site: ResourceSettings) -> Policy:
        """The queue's resources and rules, over the site's defaults."""
        return Policy(queue, self.resources.over(site.over(Resources())), self._rules())

    def pilot_resources(self, site: ResourceSettings) -> Resources:
        """What one pilot of the queue asks for: as one task, but for what its own block says."""
        return self.pilot.resources.over(self.resources.over(site.over(Resources())))

    def check_pilot(self, queue: str, site: ResourceSettings) -> None:
        """
        Raises:
            ResourceError: the queue is in the mode ``pilot``, and its settings do not fit each other.
        """
        if self.mode != "pilot":
            return
        task, pilot = self.policy(queue, site).defaults, self.pilot_resources(site)
        block = f'hpc.queues."{queue}"'
        if not self.pilot.resources.time_limit or not pilot.time_minutes:
            raise ResourceError(f"{block}.pilot.resources.time_limit is not set: say how long one pilot may run")
        if not task.time_minutes:
            raise ResourceError(
                f"{block}.resources.time_limit is not set: in the mode pilot each task needs a limit, as a pilot "
                "starts no task that could outlast it"
            )
        if pilot.nodes != 1:
            raise ResourceError(
                f"{block}.pilot.resources.num_nodes is {pilot.nodes}, but a pilot has one node; for more nodes raise "
                f"{block}.pilot.max_pilots"
            )
        if not fits(task, pilot):
            raise ResourceError(
                f"a task of {block}.resources does not fit into one pilot of {block}.pilot.resources: its CPUs, "
                "memory, GPUs and time limit must be those of one task at least, its partition and account the same"
            )

    def _rules(self) -> Mapping[str, Override]:
        if self.overrides is None:
            return DEFAULT_OVERRIDES
        return {name: settings.rule(name) for name, settings in self.overrides.items()}
