"""Lengths of time as Slurm writes them."""

from __future__ import annotations

import re


def format_duration(seconds: float) -> str:
    """``HH:MM:SS``, or ``D-HH:MM:SS`` from a day on."""
    days, rest = divmod(max(int(seconds), 0), 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def seconds(text: str) -> int | None:
    """What ``[D-]HH:MM:SS`` or ``MM:SS`` means; None for ``UNLIMITED``, ``Partition_Limit`` and the like."""
    match = re.fullmatch(r"(?:(\d{1,9})-)?(?:(\d{1,9}):)?(\d{1,9}):(\d{1,9})", text.strip(), re.ASCII)
    if match is None:
        return None
    days, hours, minutes, rest = (int(part) if part else 0 for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
