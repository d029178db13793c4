"""Which GPUs a container is lent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GpuShare:
    """``devices``: indexes as the driver counts them, or UUIDs; ``all`` of the machine's instead."""

    devices: tuple[str, ...] = ()
    all: bool = False

    def __bool__(self) -> bool:
        return self.all or bool(self.devices)


NO_GPUS = GpuShare()
ALL_GPUS = GpuShare(all=True)


def share(flag: str | None, environ: Mapping[str, str], *, present: bool) -> GpuShare:
    """From ``--gpus`` (``none`` with ``--cpu-only``), else from what Slurm or whoever started us allows.

    ``present``: whether the machine has any, which decides where nobody says anything.
    """
    for text in (flag, *(environ.get(name) for name in _variables(environ))):
        if text is not None:
            return _parsed(text)
    return ALL_GPUS if present else NO_GPUS


def _variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """In the order of trust. Where Slurm confines a job to its GPUs by cgroup it counts CUDA_VISIBLE_DEVICES from 0,
    which is true for the job's own processes; a container daemon is outside and needs the machine's own numbers."""
    uuids = environ.get("CUDA_VISIBLE_DEVICES", "").startswith(("GPU-", "MIG-"))
    if "SLURM_JOB_GPUS" in environ and not uuids:
        return ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
    return ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")


def _parsed(text: str) -> GpuShare:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or words[0].lower() in ("none", "void", "nodevfiles", "-1"):
        return NO_GPUS
    if words[0].lower() == "all":
        return ALL_GPUS
    # MIG devices are written 0.1 on the command line, 0:1 for the driver.
    return GpuShare(tuple(word if "-" in word else word.replace(".", ":") for word in words))
