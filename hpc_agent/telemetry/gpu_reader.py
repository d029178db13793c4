"""Reader of NVIDIA GPUs through the driver's own library. A machine without one is not an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpc_agent.logs import EventLog

log = EventLog("gpus")

_GIVE_UP_AFTER = 3


class GpuReader:
    """``visible`` are the indexes or UUIDs to read, as in CUDA_VISIBLE_DEVICES; None reads all."""

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
