"""The GPUs that the local scheduler may hand out, as CUDA_VISIBLE_DEVICES names them."""

from __future__ import annotations

from collections.abc import Mapping


def names(setting: int | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Those that CUDA_VISIBLE_DEVICES leaves us, else all of the machine; of them as many as the setting says."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())[:setting]
    return tuple(str(index) for index in range(_count() if setting is None else setting))


def _count() -> int:
    """How many GPUs NVIDIA's driver reports; 0 where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetCount())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return 0
