"""Usage of CPU, memory, disk, network and GPUs of this machine, as ClearML's ``machine_stats``.

See docs/internals/clearml-protocol.md#status-reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpc_agent.clock import Clock
from hpc_agent.logs import EventLog

log = EventLog("usage")

_MB = 1024 * 1024
_FIRST_S = 0.1
_GIVE_UP_AFTER = 3
"""Failed readings after which the driver is not asked again."""


class UsageReader:
    """Reader of this machine's usage. Rates are means since the reading before, so the first reading has none; its CPU
    usage is measured for a moment."""

    def __init__(self, clock: Clock, gpus: GpuReader, disk: Path | None = None) -> None:
        self._clock = clock
        self._gpus = gpus
        self._disk = disk or Path.home()
        self._last: tuple[float, dict[str, float]] | None = None

    def read(self) -> dict[str, Any]:
        """One ``machine_stats`` object; what the machine does not tell is left out."""
        import psutil  # no job's process waits for it

        memory = psutil.virtual_memory()
        stats: dict[str, Any] = {
            "cpu_usage": [psutil.cpu_percent(None if self._last else _FIRST_S)],
            "memory_used": round((memory.total - memory.available) / _MB, 3),
            "memory_free": round(memory.available / _MB, 3),
        }
        with suppress(OSError):  # a home that is not mounted here
            stats["disk_free_home"] = round(100 - psutil.disk_usage(str(self._disk)).percent, 3)
        stats.update(self._rates())
        stats.update(self._gpus.read())
        return stats

    def _rates(self) -> dict[str, float]:
        """MB/s since the last reading."""
        import psutil

        now = self._clock.monotonic()
        counts: dict[str, float] = {}
        network = psutil.net_io_counters()
        if network is not None:
            counts.update(network_tx=network.bytes_sent, network_rx=network.bytes_recv)
        disk = psutil.disk_io_counters()
        if disk is not None:
            counts.update(disk_read=disk.read_bytes, disk_write=disk.write_bytes)
        before, self._last = self._last, (now, counts)
        if before is None or now <= before[0]:
            return {}
        seconds = now - before[0]
        # Counters start over at an interface's reset.
        return {
            name: round(max(value - before[1].get(name, value), 0.0) / seconds / _MB, 3)
            for name, value in counts.items()
        }


class GpuReader:
    """Reader of NVIDIA GPUs through the driver's own library. A machine without one is not an error.

    ``visible`` are the indexes or UUIDs to read, as in CUDA_VISIBLE_DEVICES; None reads all.
    """

    def __init__(self, visible: Sequence[str] | None = None) -> None:
        self._visible = visible
        self._failures = 0
        self._library: Any = None
        self._handles: list[Any] | None = None

    def read(self) -> dict[str, list[float]]:
        """``gpu_usage`` %, ``gpu_temperature`` °C, ``gpu_memory_used`` and ``gpu_memory_free`` MB, a number a GPU."""
        if self._failures >= _GIVE_UP_AFTER or self._visible == []:
            return {}
        try:
            return self._read(self._open())
        except self._errors() as error:
            self._failures += 1
            log.debug("gpu.not_read", error=error, failures=self._failures)
            return {}

    def _errors(self) -> tuple[type[BaseException], ...]:
        return (OSError, ImportError) if self._library is None else (self._library.NVMLError, OSError)

    def _open(self) -> list[Any]:
        if self._handles is None:
            import pynvml

            self._library = pynvml
            pynvml.nvmlInit()
            self._handles = [handle for handle in self._all(pynvml) if handle is not None]
        return self._handles

    def _all(self, library: Any) -> list[Any]:
        if self._visible is None:
            return [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
        return [
            library.nvmlDeviceGetHandleByIndex(int(name))
            if name.isdigit()
            else library.nvmlDeviceGetHandleByUUID(name.encode())
            for name in self._visible
        ]

    def _read(self, handles: list[Any]) -> dict[str, list[float]]:
        if not handles:
            return {}
        library = self._library
        memory = [library.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
        return {
            "gpu_usage": [float(library.nvmlDeviceGetUtilizationRates(handle).gpu) for handle in handles],
            "gpu_temperature": [
                float(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU)) for handle in handles
            ],
            "gpu_memory_used": [round(info.used / 1024**2, 3) for info in memory],
            "gpu_memory_free": [round(info.free / 1024**2, 3) for info in memory],
        }
