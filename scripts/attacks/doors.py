"""Finds the doors and tries their cases."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import attacks
from attacks.case import Case

CASE_LIMIT_S = 60
"""A case that takes longer is broken: most take well under a second."""
LEAST_TRIED = 300


@dataclass(frozen=True)
class Door:
    """``module``: what it is called on the command line; ``name``: in tables."""

    module: str
    name: str
    cases: Sequence[Case]
    world: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    needs_root: bool = False
    """It becomes other users."""

    @property
    def can_be_tried(self) -> bool:
        return not self.needs_root or os.geteuid() == 0


@dataclass(frozen=True)
class Attempt:
    """``admitted``: what got in; ``broken``: the traceback of a case that could not tell."""

    door: Door
    case: Case
    admitted: str = ""
    broken: str = ""


class UnknownDoorError(Exception):
    """There is no door of that name."""


class TooSlowError(Exception):
    """A case did not end."""


def find_doors(wanted: Sequence[str] = ()) -> list[Door]:
    """All doors, or those that are ``wanted``, by module or by name.

    Raises:
        UnknownDoorError: one of them does not exist; the message lists those that do.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(attacks.__path__))
    modules = [importlib.import_module(f"attacks.{name}") for name in names if name not in ("case", "doors")]
    doors = [_door(module) for module in modules if hasattr(module, "CASES")]
    for word in wanted:
        if not any(word in (door.module, door.name) for door in doors):
            there = ", ".join(door.module for door in doors)
            raise UnknownDoorError(f"there is no door {word!r}; there are: {there}")
    return [door for door in doors if not wanted or door.module in wanted or door.name in wanted]


def _door(module: ModuleType) -> Door:
    name = module.__name__.rpartition(".")[2]
    doubled = [case for case, count in Counter(case.name for case in module.CASES).items() if count > 1]
    if doubled:
        raise ValueError(f"cases of {name} have the same name: {', '.join(doubled)}")
    world = getattr(module, "world", contextlib.nullcontext)
    return Door(name, module.DOOR, module.CASES, world, getattr(module, "NEEDS_ROOT", False))


def attempts(door: Door) -> Iterator[Attempt]:
    """Each case of the door, in a folder of its own."""
    with door.world(), tempfile.TemporaryDirectory(prefix="attack") as folder:
        for number, case in enumerate(door.cases):
            place = Path(folder) / str(number)
            place.mkdir()
            yield _try(door, case, place)


def _try(door: Door, case: Case, place: Path) -> Attempt:
    try:
        with _limited():
            return Attempt(door, case, admitted=case.attempt(place))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - whatever a case does, the others are tried
        return Attempt(door, case, broken=traceback.format_exc())


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlowError(f"no end after {CASE_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(CASE_LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def figures(tried: Sequence[Attempt], *, all_doors: bool) -> dict[str, Any]:
    """``goals``: what must hold. How many are tried matters only where all doors are."""
    doors = list(dict.fromkeys(attempt.door.name for attempt in tried))
    goals = [_at_least("tried", len(tried), LEAST_TRIED)] if all_doors else []
    goals += [
        _at_most(f"admitted: {door}", sum(bool(a.admitted) for a in tried if a.door.name == door), 0) for door in doors
    ]
    goals.append(_at_most("broken cases", sum(bool(attempt.broken) for attempt in tried), 0))
    return {
        "tried": {door: sum(attempt.door.name == door for attempt in tried) for door in doors},
        "admitted": [_named(attempt, attempt.admitted) for attempt in tried if attempt.admitted],
        "broken": [_named(attempt, attempt.broken) for attempt in tried if attempt.broken],
        "goals": goals,
    }


def _named(attempt: Attempt, what: str) -> dict[str, str]:
    return {"door": attempt.door.name, "case": attempt.case.name, "what": what}


def _at_least(name: str, value: int, bound: int) -> dict[str, Any]:
    return {"name": name, "value": value, "bound": bound, "met": value >= bound}


def _at_most(name: str, value: int, bound: int) -> dict[str, Any]:
    return {"name": name, "value": value, "bound": bound, "met": value <= bound}
