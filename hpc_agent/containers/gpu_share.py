"""GPU share of a container: the devices that it may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path

import msgspec
from msgspec.structs import replace


class GpuMaker(Enum):
    """Maker of the GPUs: each has a driver, device files and variables of its own."""

    NVIDIA = "nvidia"
    AMD = "amd"


class GpuShare(msgspec.Struct, frozen=True):
    """``devices``: indexes as the driver counts them, or UUIDs; ``all`` of the machine's instead."""

    devices: tuple[str, ...] = ()
    all: bool = False
    maker: GpuMaker = GpuMaker.NVIDIA

    def __bool__(self) -> bool:
        return self.all or bool(self.devices)


NO_GPUS = GpuShare()
ALL_GPUS = GpuShare(all=True)

_USUAL = {
    GpuMaker.NVIDIA: ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
    # Slurm sets the first for AMD's, and often CUDA's name for them too.
    GpuMaker.AMD: ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
}
_DEVICE_FILES = {GpuMaker.NVIDIA: "/dev/nvidiactl", GpuMaker.AMD: "/dev/kfd"}
"""The file that a maker's driver makes, whatever the number of its GPUs."""


def maker_of_node(devices: Path = Path("/dev")) -> GpuMaker | None:
    """Whose GPUs this machine has, by the driver's files in ``devices``; None if it has none."""
    return next((maker for maker, file in _DEVICE_FILES.items() if (devices / Path(file).name).exists()), None)


def share(
    flag: str | None, environ: Mapping[str, str], *, maker: GpuMaker | None, job_variables: Sequence[str] = ()
) -> GpuShare:
    """From ``--gpus`` (``none`` with ``--cpu-only``), else from the variables of the job or of the shell.

    Args:
        maker: whose GPUs the machine has, which decides where nothing else does; None: it has none.
        job_variables: where the scheduler names the GPUs of the job, as the node counts them.
    """
    known = maker or GpuMaker.NVIDIA
    for text in (flag, *(environ.get(name) for name in job_variables or _USUAL[known])):
        if text is not None:
            return replace(_parsed(text), maker=known)
    return replace(ALL_GPUS, maker=known) if maker else NO_GPUS


def _parsed(text: str) -> GpuShare:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or words[0].lower() in ("none", "void", "nodevfiles", "-1"):
        return NO_GPUS
    if words[0].lower() == "all":
        return ALL_GPUS
    # MIG devices are written 0.1 on the command line, 0:1 for the driver.
    return GpuShare(tuple(word if "-" in word else word.replace(".", ":") for word in words))
