"""The names of GPUs, as ``--gpus``, CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES give them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from hpc_agent.errors import InputError

NONE = "none"
ALL = "all"

_NAME = re.compile(r"\d+([.:]\d+)?|(GPU|MIG)-[0-9A-Za-z/-]+")
_NO_GPUS = ("", NONE, "void", "nodevfiles", "-1")


def parse_gpus(flag: str) -> str:
    """``--gpus`` in the form that variables have: ``0,1`` for ``0, 1`` and ``0-1``; ``all`` and ``none`` as they are.

    MIG devices are written ``0.1`` on the command line and ``0:1`` for the driver.

    Raises:
        InputError: it names no GPUs.
    """
    text = flag.strip()
    if text.lower() in (ALL, NONE):
        return text.lower()
    return ",".join(dict.fromkeys(name for part in text.split(",") for name in _names(part.strip(), flag)))


def _names(part: str, flag: str) -> Iterator[str]:
    ends = re.fullmatch(r"(\d+)-(\d+)", part)
    if ends and int(ends[1]) <= int(ends[2]) < 1024:
        yield from map(str, range(int(ends[1]), int(ends[2]) + 1))
    elif _NAME.fullmatch(part):
        yield part if "-" in part else part.replace(".", ":")
    else:
        raise InputError(f'--gpus "{flag}" names no GPUs: expected numbers as in 0,1 or 0-3, or all')


def visible_gpus(environ: Mapping[str, str]) -> list[str] | None:
    """What a process may see: CUDA_VISIBLE_DEVICES, else NVIDIA_VISIBLE_DEVICES; None means all."""
    for variable in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        text = environ.get(variable)
        if text is None or text == ALL:
            continue
        if text in _NO_GPUS:
            return []
        return [part.strip() for part in text.split(",") if part.strip()]
    return None
