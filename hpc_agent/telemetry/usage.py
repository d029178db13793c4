"""Usage of CPU, memory, disk, network and GPUs of this machine, as ClearML's ``machine_stats``.

See docs/internals/clearml-protocol.md#status-reports.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from hpc_agent.clock import Clock
from hpc_agent.telemetry.gpu_reader import GpuReader

_MB = 1024 * 1024


class UsageReader:
    """Rates are means since the reading before, so the first reading has none."""

    def __init__(self, clock: Clock, gpus: GpuReader, disk: Path | None = None) -> None:
        self._clock = clock
        self._gpus = gpus
        self._disk = disk or Path.home()
        self._last: tuple[float, dict[str, float]] | None = None
        psutil.cpu_percent(None)  # starts the interval that the first reading is the mean of

    def read(self) -> dict[str, Any]:
        """One ``machine_stats`` object; what the machine does not tell is left out."""
        memory = psutil.virtual_memory()
        stats: dict[str, Any] = {
            "cpu_usage": [psutil.cpu_percent(None)],
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
