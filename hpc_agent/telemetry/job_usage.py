"""CPU, memory and GPUs that the processes of this job use, in samples; peaks and means of them."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import psutil

from hpc_agent.clock import Clock
from hpc_agent.domain.gpu_ids import visible_gpus
from hpc_agent.telemetry.usage import GpuReader

_GIB = 1024**3
MOST_SAMPLES = 480
"""Kept of a run, however long: when there are more, two become one."""
_BUSY_PERCENT = 1.0


class UsageSample(msgspec.Struct, frozen=True):
    """Use in one interval; GPU figures have one number per GPU."""

    seconds: float
    """Since the start, at its end."""
    cpus: float
    memory: float
    """GiB."""
    gpu_busy: tuple[float, ...] = ()
    """Percent."""
    gpu_memory: tuple[float, ...] = ()
    """GiB."""


class UsageSummary(msgspec.Struct, frozen=True):
    """Use of a whole run."""

    seconds: float
    cpus: float
    """The mean in use."""
    busiest_cpus: float | None
    """Of 95 % of the samples; None for a run without two."""
    memory: float
    """GiB, the most in use."""
    gpus: int = 0
    busy_gpus: float = 0.0
    """Mean."""
    idle_gpus: int = 0
    gpu_memory: float = 0.0
    """GiB, the most in use on one GPU."""
    gpu_capacity: float = 0.0
    """GiB that this GPU has."""
    samples: Sequence[UsageSample] = ()


class JobUsage:
    """Meter of the processes of this job: made when the task's process starts, ``sample`` now and then."""

    def __init__(
        self,
        environ: Mapping[str, str],
        clock: Clock,
        control_group: str = "",
        processes: Counters | None = None,
        /,
        *,
        own_groups: Path = Path("/proc/self/cgroup"),
        groups: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        """``control_group``: name of the one that the scheduler made for the job, if it does so. ``processes``: where
        it does not; by default all that descends from this process."""
        self._clock = clock
        self._counters = _counters(control_group, own_groups, groups, processes or _ProcessCounters())
        self._gpus = GpuReader(visible_gpus(environ))
        self._began = self._at = clock.monotonic()
        self._first_cpu = self._last_cpu = self._counters.cpu_seconds()
        self._largest_before = _largest_child()
        self._samples: list[UsageSample] = []
        self._peak = 0.0
        self._gpu_peaks: list[float] = []
        self._gpu_capacity: list[float] = []
        self._gpu_busy_seconds: list[float] = []
        self._gpu_most: list[float] = []

    def sample(self) -> None:
        """Add a sample of the time since the one before."""
        now, cpu = self._clock.monotonic(), self._counters.cpu_seconds()
        passed = now - self._at
        if passed <= 0:
            return
        memory = self._counters.memory() / _GIB
        gpu = self._gpus.read()
        used = tuple(megabytes / 1024 for megabytes in gpu.get("gpu_memory_used", ()))
        free = tuple(megabytes / 1024 for megabytes in gpu.get("gpu_memory_free", ()))
        busy = tuple(gpu.get("gpu_usage", ()))
        # A process whose parent does not wait for it takes its time along.
        cpus = max(cpu - self._last_cpu, 0.0) / passed
        self._samples.append(UsageSample(now - self._began, cpus, memory, busy, used))
        self._at, self._last_cpu = now, cpu
        self._peak = max(self._peak, memory)
        self._gpu_peaks = _largest(self._gpu_peaks, used)
        self._gpu_capacity = _largest(self._gpu_capacity, [sum(both) for both in zip(used, free, strict=True)])
        self._gpu_busy_seconds = _added(self._gpu_busy_seconds, [percent / 100 * passed for percent in busy])
        self._gpu_most = _largest(self._gpu_most, busy)
        if len(self._samples) > MOST_SAMPLES:
            self._samples = _halved(self._samples)

    def summary(self) -> UsageSummary:
        """Of the run up to now; once its process has been waited for, to its last second."""
        seconds = max(self._clock.monotonic() - self._began, 1e-3)
        largest = _largest_child()
        # The kernel's own record has also the peaks between two samples.
        peak = max(self._peak, largest / _GIB) if largest > self._largest_before else self._peak
        fullest = max(range(len(self._gpu_peaks)), key=self._gpu_peaks.__getitem__, default=None)
        return UsageSummary(
            seconds=seconds,
            cpus=max(self._counters.cpu_seconds() - self._first_cpu, 0.0) / seconds,
            busiest_cpus=_percentile([sample.cpus for sample in self._samples], 0.95),
            memory=peak,
            gpus=len(self._gpu_most),
            busy_gpus=sum(self._gpu_busy_seconds) / max(self._at - self._began, 1e-3),
            idle_gpus=sum(most < _BUSY_PERCENT for most in self._gpu_most),
            gpu_memory=0.0 if fullest is None else self._gpu_peaks[fullest],
            gpu_capacity=0.0 if fullest is None else self._gpu_capacity[fullest],
            samples=tuple(self._samples),
        )


# ---------------------------------------------------------------- counters


class Counters(Protocol):
    """Counters of a group of processes."""

    def cpu_seconds(self) -> float: ...

    def memory(self) -> float:
        """Bytes."""


class _ProcessCounters:
    """Sums over our descendants."""

    def cpu_seconds(self) -> float:
        """Of all that ran since we live."""
        own = psutil.Process()
        times = own.cpu_times()
        total = times.children_user + times.children_system
        for process in _descendants(own):
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])  # user, system, and both of the children that it waited for
        return float(total)

    def memory(self) -> float:
        """Bytes; pages that processes share count more than once, as in Slurm's own figure."""
        total = 0
        for process in _descendants(psutil.Process()):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total


class _GroupCounters:
    """From the job's own control group, where that counts."""

    def __init__(self, memory: Path | None, cpu: Path | None, others: Counters) -> None:
        self._others = others
        self._memory = memory
        self._cpu = cpu

    def cpu_seconds(self) -> float:
        if self._cpu is not None:
            with contextlib.suppress(OSError, ValueError, KeyError):
                if self._cpu.name == "cpuacct.usage":
                    return int(self._cpu.read_text(encoding="utf-8")) / 1e9
                return _fields(self._cpu)["usage_usec"] / 1e6
        return self._others.cpu_seconds()

    def memory(self) -> float:
        if self._memory is not None:
            with contextlib.suppress(OSError, ValueError, KeyError):
                fields = _fields(self._memory)
                # Without the page cache, which the kernel gives back. Version 1 calls it rss.
                anonymous = fields["anon"] if "anon" in fields else fields["total_rss"]
                return anonymous + fields.get("total_shmem", fields.get("shmem", 0))
        return self._others.memory()


def _counters(name: str, own_groups: Path, groups: Path, others: Counters) -> Counters:
    """Of the control group of this name above ours: any other one is shared with what is not ours."""
    memory: Path | None = None
    cpu: Path | None = None
    with contextlib.suppress(OSError):
        for line in own_groups.read_text(encoding="utf-8").splitlines() if name else ():
            _, controllers, path = line.split(":", 2)
            inner = (groups / (controllers if controllers else ".")) / path.strip("/")
            found = next((group for group in (inner, *inner.parents) if group.name == name), None)
            if found is None:
                continue
            named = controllers.split(",")
            if (not controllers or "memory" in named) and (found / "memory.stat").exists():
                memory = found / "memory.stat"
            if not controllers and (found / "cpu.stat").exists():
                cpu = found / "cpu.stat"
            elif "cpuacct" in named and (found / "cpuacct.usage").exists():
                cpu = found / "cpuacct.usage"
    return _GroupCounters(memory, cpu, others) if memory or cpu else others


def _fields(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _descendants(own: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return own.children(recursive=True)
    return []


def _largest_child() -> float:
    """Bytes that the largest process among those that we waited for has ever had in memory."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024.0


# ---------------------------------------------------------------- arithmetic


def _largest(before: Sequence[float], now: Sequence[float]) -> list[float]:
    return [max(pair) for pair in zip(before, now, strict=True)] if len(before) == len(now) else list(now or before)


def _added(before: Sequence[float], now: Sequence[float]) -> list[float]:
    return [sum(pair) for pair in zip(before, now, strict=True)] if len(before) == len(now) else list(now or before)


def _halved(samples: Sequence[UsageSample]) -> list[UsageSample]:
    """Each two as one: means of CPUs and GPUs, the larger amounts of memory."""
    result = []
    for first, second in zip(samples[::2], samples[1::2], strict=False):
        same = len(first.gpu_busy) == len(second.gpu_busy)
        busy = tuple(sum(pair) / 2 for pair in zip(first.gpu_busy, second.gpu_busy, strict=True)) if same else ()
        memory = tuple(max(pair) for pair in zip(first.gpu_memory, second.gpu_memory, strict=True)) if same else ()
        cpus = (first.cpus + second.cpus) / 2
        result.append(UsageSample(second.seconds, cpus, max(first.memory, second.memory), busy, memory))
    return result + list(samples[2 * len(result) :])


def _percentile(values: Sequence[float], share: float) -> float | None:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if len(values) > 1 else None


def of_all_nodes(nodes: Sequence[UsageSummary]) -> UsageSummary:
    """The use of a job of many nodes: CPUs and memory of a node as it was asked for (the mean of the nodes' CPUs, the
    fullest node's memory), GPUs of all of them together. ``samples`` are the first node's."""
    first = nodes[0]
    fullest = max(nodes, key=lambda node: node.gpu_memory)
    busiest = [node.busiest_cpus for node in nodes if node.busiest_cpus is not None]
    return UsageSummary(
        seconds=max(node.seconds for node in nodes),
        cpus=sum(node.cpus for node in nodes) / len(nodes),
        busiest_cpus=max(busiest, default=None),
        memory=max(node.memory for node in nodes),
        gpus=sum(node.gpus for node in nodes),
        busy_gpus=sum(node.busy_gpus for node in nodes),
        idle_gpus=sum(node.idle_gpus for node in nodes),
        gpu_memory=fullest.gpu_memory,
        gpu_capacity=fullest.gpu_capacity,
        samples=first.samples,
    )
