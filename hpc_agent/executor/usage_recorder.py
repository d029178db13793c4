"""What a task used of what it asked for: sampled while its process runs, reported when it has ended."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain import efficiency as eff
from hpc_agent.domain.efficiency import Efficiency, UsageDetails, Used
from hpc_agent.domain.ids import TaskId
from hpc_agent.errors import HpcAgentError
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.base import JobVariables
from hpc_agent.telemetry.job_usage import JobUsage, UsageSummary, of_all_nodes
from hpc_agent.wire.plot import Line, plot_event

log = EventLog("usage")

PLOT = ("Resources", "used of asked")
"""Metric and variant of the chart."""
_DENSE_S, _DENSE_INTERVAL_S, _INTERVAL_S = 60.0, 1.0, 5.0
"""A sample per second in the first minute, for short tasks; later one in five seconds."""
_REPORT_S, _HURRIED_REPORT_S = 15.0, 3.0
"""How long the final status waits for these figures at most; the second where the scheduler ends the job."""


class Allocation(msgspec.Struct, frozen=True):
    """What the job was given. None: it is not known, or there is no limit."""

    cpus: float | None = None
    memory_mb: float | None = None
    nodes: int = 1

    @classmethod
    def of(cls, job: JobVariables | None) -> Allocation:
        """``job`` as the scheduler says it; else what the machine lets this process use."""
        cpus = job.cpus if job and job.cpus else float(len(os.sched_getaffinity(0)))
        return cls(cpus, job.memory_mb, job.nodes) if job else cls(cpus)


class UsageRecorder:
    """Recorder of one run: ``start`` with its process, ``stop`` after it, ``report``."""

    def __init__(
        self,
        client: Client,
        task: TaskId,
        identity: AgentIdentity,
        directory: RunDirectory,
        clock: Clock,
        agent_began: float,
    ) -> None:
        """``agent_began``: monotonic time from which the job's time is counted."""
        self._client = client
        self._task = task
        self._identity = identity
        self._directory = directory
        self._clock = clock
        self._job = backends.job_variables()
        self._agent_began = agent_began
        self._usage: JobUsage | None = None
        self._summary: UsageSummary | None = None
        self._nodes: Mapping[str, UsageSummary] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="usage", daemon=True)

    def start(self) -> None:
        """The process has been started. Never raises: figures that are missing must not cost the task anything."""
        try:
            self._usage = JobUsage(os.environ, self._clock, self._job.control_group if self._job else "")
            self._thread.start()
        except Exception as error:  # noqa: BLE001 - no /proc, or no thread left to its user
            self._usage = None
            log.warning("usage.not_measured", task=self._task, error=error)

    def stop(self, nodes: Mapping[str, UsageSummary] | None = None) -> None:
        """The process has ended, and was waited for. ``nodes``: what each node of a job of many has used.

        Never raises, as ``start``.
        """
        self._ended.set()
        self._nodes = nodes or {}
        if self._usage is None:
            return
        self._thread.join(timeout=1)
        try:
            self._summary = of_all_nodes(list(self._nodes.values())) if self._nodes else self._usage.summary()
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("usage.not_measured", task=self._task, error=error)

    def report(self, *, completed: bool, time_limit: float | None, hurry: bool) -> None:
        """Set user properties and the chart; a server that does not answer costs the figures and some seconds.

        ``time_limit``: seconds, as the scheduler said; where it was not asked the job's script says it. ``hurry``: the
        scheduler ends the job, and the final status is worth more than these figures.
        """
        seconds = _HURRIED_REPORT_S if hurry else _REPORT_S
        thread = threading.Thread(target=self._report, args=(completed, time_limit), name="efficiency", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread left to its user
            log.warning("efficiency.not_reported", task=self._task, error=error)
            return
        thread.join(timeout=seconds)
        if thread.is_alive():
            log.warning("efficiency.slow", task=self._task, seconds=seconds)

    def _sample(self) -> None:
        assert self._usage is not None
        began = self._clock.monotonic()
        while True:
            dense = self._clock.monotonic() - began < _DENSE_S
            if self._clock.wait(self._ended, _DENSE_INTERVAL_S if dense else _INTERVAL_S):
                return
            try:
                self._usage.sample()
            except Exception as error:  # noqa: BLE001 - as in ``start``
                log.warning("usage.not_sampled", task=self._task, error=error)

    def _report(self, completed: bool, time_limit: float | None) -> None:
        if self._summary is None:
            return
        try:
            given = Allocation.of(self._job)
            limit = time_limit or self._limit_of_script()
            seconds = Used(self._clock.monotonic() - self._agent_began, limit)
            found = efficiency_of(self._summary, given, seconds)
            details = UsageDetails(self._summary.busiest_cpus, self._summary.idle_gpus, completed)
            properties = {**eff.as_properties(found), eff.ADVICE: "; ".join(eff.advice(found, details))}
            if self._identity.job:
                properties[eff.JOB] = _job(self._identity, given, len(self._nodes))
            self._client.tasks.set_properties(self._task, properties, budget=ONCE)
            self._report_chart(self._summary, found)
        except (HpcAgentError, OSError) as error:
            log.warning("efficiency.not_reported", task=self._task, error=error)
            return
        log.info("efficiency.reported", task=self._task, **{k: v for k, v in properties.items() if v})

    def _limit_of_script(self) -> float | None:
        if not self._identity.daemon_managed:
            return None
        return backends.time_limit_in(self._directory.script.read_text(encoding="utf-8", errors="replace"))

    def _report_chart(self, summary: UsageSummary, found: Efficiency) -> None:
        lines = chart_of_nodes(self._nodes, Allocation.of(self._job)) if self._nodes else chart(summary, found)
        if not lines:
            return
        axes = ("minutes", "% of what was asked for")
        at = int(self._clock.now().timestamp() * 1000)
        event = plot_event(self._task, self._identity.worker, PLOT, lines, axes, at)
        self._client.events.add([event], budget=ONCE)


def efficiency_of(summary: UsageSummary, given: Allocation, seconds: Used) -> Efficiency:
    """The use of a run, of what the job was given."""
    has_gpus = bool(summary.gpus)
    return Efficiency(
        cpus=Used(summary.cpus, given.cpus),
        memory=Used(summary.memory, given.memory_mb / 1024 if given.memory_mb else None),
        gpus=Used(summary.busy_gpus, float(summary.gpus)) if has_gpus else None,
        gpu_memory=Used(summary.gpu_memory, summary.gpu_capacity or None) if has_gpus else None,
        seconds=seconds,
    )


def chart(summary: UsageSummary, found: Efficiency) -> list[Line]:
    """One line for each kind that a limit is known of, in percent of it; none for a run without two samples."""
    samples = summary.samples
    if len(samples) < 2:
        return []
    minutes = [sample.seconds / 60 for sample in samples]
    lines = []

    def add(name: str, share: Used | None, unit: str, used: Sequence[float]) -> None:
        if share is not None and share.asked:
            asked = f"{share.asked:.3g}"
            lines.append(Line(f"{name} (of {asked} {unit})", minutes, [100 * value / share.asked for value in used]))

    add("CPU", found.cpus, "CPUs", [sample.cpus for sample in samples])
    add("memory", found.memory, "GiB", [sample.memory for sample in samples])
    add("GPU", found.gpus, "GPUs", [sum(sample.gpu_busy) / 100 for sample in samples])
    add("GPU memory", found.gpu_memory, "GiB", [max(sample.gpu_memory, default=0.0) for sample in samples])
    return lines


def chart_of_nodes(nodes: Mapping[str, UsageSummary], given: Allocation) -> list[Line]:
    """The lines of each node, with its name."""
    lines = []
    for name, summary in nodes.items():
        own = efficiency_of(summary, given, Used(summary.seconds, None))
        lines += [replace(line, name=f"{name} {line.name}") for line in chart(summary, own)]
    return lines


def _job(identity: AgentIdentity, given: Allocation, measured: int) -> str:
    """``measured``: nodes whose use is in the figures; 0 for a run that measured its own only."""
    more = f", the first of {given.nodes} nodes" if given.nodes > 1 and not measured else ""
    more = f" and {measured - 1} more nodes" if measured > 1 else more
    return f"{identity.job} on {identity.host}{more}"
