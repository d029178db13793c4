"""Options of a daemon, as its flags set them for its jobs: settings, flags of ``execute``, variables of the job. Pure.

A batch system owns the GPUs of its cluster: ``--gpus 0,1`` asks for two of them, ``--dynamic-gpus`` for as many as the
queue says. Without one they are this machine's, and the local scheduler hands them out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import msgspec

from hpc_agent.config.resource_settings import OverrideSettings, QueueSettings, ResourceSettings
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.capacity import GpuRange
from hpc_agent.domain.gpu_ids import ALL, NONE
from hpc_agent.domain.ids import TaskId, WorkerId
from hpc_agent.domain.resources import DEFAULT_OVERRIDES, Override
from hpc_agent.schedulers.local.settings import LocalSettings
from hpc_agent.submission.glue_template import ContainerLaunch


class DaemonOptions(msgspec.Struct, frozen=True):
    """Flags that reach the jobs."""

    batch_system: str = ""
    """Name of the batch system's backend; empty: jobs run on this machine."""
    gpus: str | None = None
    """``domain.gpu_ids.parse_gpus`` of ``--gpus``; ``none`` for ``--cpu-only``, and in services mode."""
    dynamic: Mapping[str, GpuRange] | None = None
    """``--dynamic-gpus``: queue name → GPUs of each of its jobs."""
    services: int | None = None
    """``--services-mode``: how many at once; 0 sets no limit, None is another mode."""
    docker: bool = False
    optimize: int = 0
    log_level: str = "INFO"
    tags: Sequence[str] = ()
    standalone: bool = False
    """The daemon itself uses no network but the server's: what is not in the cache is refused."""
    templates: Mapping[str, str] | None = None
    """``--template-files``: queue name → template."""
    launch: ContainerLaunch | None = None
    """``--singularity-mode`` or ``--srun-delegation``."""

    @property
    def cpu_only(self) -> bool:
        return self.gpus == NONE

    def flags(self) -> list[str]:
        """Further flags of ``execute`` in a job."""
        return [
            *(["--docker"] if self.docker else []),
            *(["--cpu-only"] if self.cpu_only else []),
            *(["-" + "O" * self.optimize] if self.optimize else []),
            *(["--log-level", self.log_level] if self.log_level != "INFO" else []),
        ]


class WorkerIdTemplate(msgspec.Struct, frozen=True):
    """A daemon's id before it has a slot: one with a name of its own needs none."""

    text: str
    numbered: bool

    def id(self, slot: int) -> WorkerId:
        return WorkerId(f"{self.text}{slot}" if self.numbered else self.text)


def name(
    options: DaemonOptions, base: str, *, given: bool, visible: Sequence[str] | None, cluster: str
) -> WorkerIdTemplate:
    """The id of a daemon with these flags (docs/internals/clearml-protocol.md#worker-ids).

    ``base``: a worker id that was ``given``, else the machine's name. ``visible``: the GPUs that a variable leaves it,
    where --gpus says nothing; None: not given.
    """
    if given:
        return WorkerIdTemplate(base, numbered=False)
    if options.batch_system:
        return WorkerIdTemplate(f"{base}:{options.batch_system}:{cluster}:", numbered=True)
    gpus = options.gpus or (None if visible is None else ",".join(visible) or NONE)
    if gpus == NONE:
        return WorkerIdTemplate(f"{base}:cpu:", numbered=True)
    if options.dynamic is not None:
        return WorkerIdTemplate(f"{base}:dgpu{gpus or ALL}", numbered=False)
    return (
        WorkerIdTemplate(f"{base}:gpu{gpus}", numbered=False) if gpus else WorkerIdTemplate(f"{base}:", numbered=True)
    )


class JobNaming(msgspec.Struct, frozen=True):
    """Naming of a daemon's jobs. ``base``: a worker id that was ``given``, else the machine's name."""

    worker: WorkerId
    base: str
    given: bool = False


def exports(options: DaemonOptions, naming: JobNaming, task: TaskId) -> dict[str, str]:
    """Variables of a job, each a shell word."""
    words = {"CLEARML_WORKER_ID": _job_worker(options, naming, task)}
    if options.tags:
        words["CLEARML_WORKER_TAGS"] = shlex.quote(shlex.join(options.tags))
    if options.services is not None:
        words["CLEARML_AGENT_SERVICE_TASK"] = "1"
    return {name: word for name, word in words.items() if word}


def _job_worker(options: DaemonOptions, naming: JobNaming, task: TaskId) -> str:
    """Each task is a worker of its own on the server's list, so that several at once can be distinguished."""
    if options.services is not None:
        return shlex.quote(f"{naming.worker}:service:{task}")
    if options.dynamic is not None and not options.batch_system:
        # Which ones it got is known when it starts.
        return shlex.quote(f"{naming.base}:gpu") + '"$CUDA_VISIBLE_DEVICES"'
    if options.batch_system and not naming.given:
        return ""  # <node>:<backend>:<job>, which says more
    return shlex.quote(f"{naming.worker}:{task}")


def job_settings(settings: AllSettings, options: DaemonOptions, queues: Sequence[str], pool: int) -> AllSettings:
    """``settings`` as the flags change them for these queues. ``pool``: GPUs of this machine that may be handed out."""
    hpc = settings.hpc
    changed = dict(hpc.queues)
    for queue in queues:
        asked = _gpus(settings, options, queue, pool)
        if asked is not None:
            changed[queue] = _asking(hpc.queue(queue), asked)
        if template := (options.templates or {}).get(queue):
            changed[queue] = msgspec.structs.replace(changed.get(queue) or hpc.queue(queue), template=template)
    changes: dict[str, object] = {"queues": changed}
    if options.services is not None:
        # A service runs until it is stopped: what limits it is the partition, or its own queue's block.
        changes["resources"] = msgspec.structs.replace(hpc.resources, time_limit=None)
        changes["max_jobs"] = options.services or hpc.max_jobs
    return msgspec.structs.replace(settings, hpc=msgspec.structs.replace(hpc, **changes))


class _Asked(msgspec.Struct, frozen=True):
    """GPUs of a job, and the most that a task may ask for; None leaves the queue's own rule."""

    gpus: int
    most: int | None = None


def _gpus(settings: AllSettings, options: DaemonOptions, queue: str, pool: int) -> _Asked | None:
    """None: what the configuration says holds."""
    if options.cpu_only:
        return _Asked(0, 0)
    if options.dynamic is not None:
        wanted = options.dynamic[queue]
        return _Asked(wanted.least, wanted.most)
    if options.batch_system:
        return _Asked(len(options.gpus.split(","))) if options.gpus not in (None, ALL) and options.gpus else None
    configured = settings.hpc.queue(queue).resources.num_gpus, settings.hpc.resources.num_gpus
    if pool and configured == (None, None):
        # As any ClearML agent: a task that says nothing gets all, or its part where several run at once.
        return _Asked(max(pool // settings.hpc.backend_settings(LocalSettings).max_jobs, 1))
    return None


def _asking(queue: QueueSettings, asked: _Asked) -> QueueSettings:
    resources: ResourceSettings = msgspec.structs.replace(queue.resources, num_gpus=asked.gpus)
    changes: dict[str, object] = {"resources": resources}
    if asked.most is not None:
        rules = dict(queue.overrides) if queue.overrides is not None else _defaults(DEFAULT_OVERRIDES)
        rules["num_gpus"] = OverrideSettings(min=0, max=asked.most)
        changes["overrides"] = rules
    return msgspec.structs.replace(queue, **changes)


def _defaults(rules: Mapping[str, Override]) -> dict[str, OverrideSettings]:
    return {
        name: OverrideSettings(min=rule.minimum, max=rule.maximum, choices=rule.choices) for name, rule in rules.items()
    }


def gpu_range(options: DaemonOptions, queue: str, gpus: int, properties: Mapping[str, str]) -> GpuRange:
    """The GPUs of one job: ``gpus``, or more of what is free where its queue says so and the task itself does not."""
    wanted = (options.dynamic or {}).get(queue)
    if wanted is None or properties.get("num_gpus", "").strip():
        return GpuRange(gpus, gpus)
    return GpuRange(gpus, wanted.most)


def slots(settings: AllSettings, options: DaemonOptions, pool: int) -> int:
    """Jobs at once on this machine, when there is no batch system."""
    if options.services is not None:
        return options.services or settings.hpc.max_jobs
    # Each has a GPU at least: they run out before any other number does.
    return max(pool, 1) if options.dynamic is not None else settings.hpc.backend_settings(LocalSettings).max_jobs
