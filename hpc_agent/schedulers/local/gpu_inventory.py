"""The GPUs that the local scheduler may hand out, as CUDA_VISIBLE_DEVICES names them."""

from __future__ import annotations

from collections.abc import Mapping

from hpc_agent.domain.gpu_ids import ALL, NONE, visible_gpus
from hpc_agent.errors import InputError


def names(setting: int | None, environ: Mapping[str, str], flag: str | None = None) -> tuple[str, ...]:
    """Those of ``--gpus`` (as ``domain.gpu_ids.parse_gpus`` gives it), else those that CUDA_VISIBLE_DEVICES or
    NVIDIA_VISIBLE_DEVICES leave us, else all of the machine; of them as many as the setting says.

    Raises:
        InputError: the flag names a GPU that the machine does not have.
    """
    if flag == NONE:
        return ()
    if flag is not None and flag != ALL:
        return _checked(tuple(flag.split(",")))
    visible = None if flag == ALL else visible_gpus(environ)
    if visible is not None:
        return tuple(visible)[:setting]
    return tuple(str(index) for index in range(_count() if setting is None else setting))


def _checked(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """``wanted``, unless NVIDIA's driver knows better; GPUs of other makes it does not know at all."""
    count = _count()
    missing = [name for name in wanted if count and name.isdigit() and int(name) >= count]
    if missing:
        raise InputError(f"--gpus names GPU {missing[0]}, but this machine has {count}, counted from 0")
    return wanted


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
