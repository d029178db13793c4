"""Serving schedule of a daemon: ``--uptime`` and ``--downtime``, and what queues and the server force. Pure.

Hours are those of a wall clock: on the day it is put forward an hour is missing, on the day it is put back one comes
twice, and both mean what the clock shows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from hpc_agent.errors import InputError

DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FORM = 'expected "<hours> <days>", as in "17-20 TUE", "0-6,22 MON-FRI" or "8 SAT,SUN"'


class Window(msgspec.Struct, frozen=True):
    """These hours (0 to 23) of these days (0 is Sunday)."""

    hours: frozenset[int]
    days: frozenset[int]

    def holds(self, local: datetime) -> bool:
        return local.isoweekday() % 7 in self.days and local.hour in self.hours

    def __str__(self) -> str:
        return f"{_ranges(self.hours)} on {', '.join(DAYS[day] for day in sorted(self.days))}"


class Schedule(msgspec.Struct, frozen=True):
    """``up``: active inside of the windows only; else inactive inside of them. Without windows: always active."""

    windows: tuple[Window, ...] = ()
    up: bool = True

    def active(self, local: datetime) -> bool:
        """``local`` is a time of the zone that the daemon's machine keeps."""
        if not self.windows:
            return True
        return any(window.holds(local) for window in self.windows) is self.up

    def __str__(self) -> str:
        if not self.windows:
            return "always"
        return f"{'uptime' if self.up else 'downtime'} {'; '.join(map(str, self.windows))}"


def schedule(uptime: Sequence[str], downtime: Sequence[str]) -> Schedule:
    """The schedule of the two flags, each a list of ``"<hours> <days>"`` entries.

    Raises:
        InputError: an entry cannot be understood, or both are given.
    """
    if uptime and downtime:
        raise InputError("give an uptime or a downtime, not both: each says all that the other would")
    return Schedule(tuple(map(parse_window, _entries(uptime or downtime))), up=not downtime)


def _entries(words: Sequence[str]) -> list[str]:
    """``"17-20 TUE"`` in one word or, without the quotes, in two."""
    pieces = " ".join(words).split()
    if len(pieces) % 2:
        raise InputError(f'the schedule "{" ".join(words)}" is not complete: {_FORM}')
    return [f"{hours} {days}" for hours, days in zip(pieces[::2], pieces[1::2], strict=True)]


def parse_window(text: str) -> Window:
    """``17-20 TUE`` is 17:00 to 19:59 on Tuesdays; ``17 TUE`` to midnight; an end of 0 is midnight too. Both parts may
    be lists with commas; days may be ranges from SUN to SAT.

    Raises:
        InputError: it is none of these.
    """
    hours, _, days = text.strip().partition(" ")
    try:
        return Window(
            frozenset(hour for part in hours.split(",") for hour in _hours(part)),
            frozenset(day for part in days.strip().upper().split(",") for day in _days(part)),
        )
    except ValueError as error:
        raise InputError(f'the schedule "{text}" cannot be understood: {error}; {_FORM}') from error


def _hours(text: str) -> range:
    match = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", text.strip())
    if not match:
        raise ValueError(f'"{text}" names no hours')
    start, end = int(match[1]), int(match[2] or 0) or 24
    if start > 23 or end > 24:
        raise ValueError(f'"{text}" is beyond the 24 hours of a day')
    if start >= end:
        raise ValueError(f'"{text}" ends before it begins; write a night as two parts, "22,0-6"')
    return range(start, end)


def _days(text: str) -> range:
    start, _, end = (part.strip() for part in text.partition("-"))
    names = [start, end or start]
    unknown = [name for name in names if name not in DAYS]
    if unknown:
        raise ValueError(f'"{unknown[0]}" is none of {", ".join(DAYS)}')
    first, last = map(DAYS.index, names)
    if first > last:
        raise ValueError(f'"{text}" goes over the end of the week; write it as two parts, "{start}-SAT,SUN-{end}"')
    return range(first, last + 1)


def _ranges(hours: Collection[int]) -> str:
    """``17:00-19:59, 22:00-23:59``."""
    parts: list[str] = []
    for hour in sorted(hours):
        if hour - 1 not in hours:
            parts.append(f"{hour:02d}:00-")
        if hour + 1 not in hours:
            parts[-1] += f"{hour:02d}:59"
    return ", ".join(parts)


class ServingDecision(msgspec.Struct, frozen=True):
    """Decision whether a queue is served now, with its origin."""

    active: bool
    why: str


def served(tags: Collection[str], force: str, plan: Schedule, local: datetime) -> ServingDecision:
    """What holds for a queue with these ``tags``; the first that has an opinion decides: the queue's tag, the worker's
    runtime property ``force`` (``on``, ``off`` or nothing) on the server, the schedule."""
    for word, active in (("off", False), ("on", True)):
        if f"force_workers:{word}" in tags:
            return ServingDecision(active, f"the queue's tag force_workers:{word}")
    if force.lower() in ("on", "off"):
        return ServingDecision(force.lower() == "on", f"the worker's runtime property force: {force.lower()}")
    return ServingDecision(plan.active(local), str(plan))
