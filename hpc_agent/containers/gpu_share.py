"""GPU share of a container: the devices that it may use. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_USUAL = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")


def share(
    flag: str | None, environ: Mapping[str, str], *, present: bool, job_variables: Sequence[str] = ()
) -> GpuShare:
    """From ``--gpus`` (``none`` with ``--cpu-only``), else from the variables of the job or of the shell.

    Args:
        present: whether the machine has any, which decides where nothing else does.
        job_variables: where the scheduler names the GPUs of the job, as the node counts them.
    """
    for text in (flag, *(environ.get(name) for name in job_variables or _USUAL)):
        if text is not None:
            return _parsed(text)
    return ALL_GPUS if present else NO_GPUS


def _parsed(text: str) -> GpuShare:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or words[0].lower() in ("none", "void", "nodevfiles", "-1"):
        return NO_GPUS
    if words[0].lower() == "all":
        return ALL_GPUS
    # MIG devices are written 0.1 on the command line, 0:1 for the driver.
    return GpuShare(tuple(word if "-" in word else word.replace(".", ":") for word in words))
