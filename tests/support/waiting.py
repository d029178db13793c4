"""How a test waits: for a state that it names, without a claim about how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import TypeVar, overload

import pytest

T = TypeVar("T")

HANG_S = 240.0
"""Far longer than anything here takes on a busy machine: only what hangs is still awaited then."""
_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.5
_SHOWN = 2000


@overload
def wait_until(what: str, look: Callable[[], T | None], *, timeout: float = HANG_S) -> T: ...


@overload
def wait_until(what: str, look: Callable[[], T], accept: Callable[[T], object], *, timeout: float = HANG_S) -> T: ...


def wait_until(
    what: str,
    look: Callable[[], T],
    accept: Callable[[T], object] = bool,
    *,
    timeout: float = HANG_S,
) -> T:
    """Look until what is seen is accepted, by default until it is true; returns it.

    Args:
        what: names the state that is awaited, for the failure: ``job 7 to run``.
        look: returns the present state, best as it is: a failure shows what was seen last.
        accept: whether a state is the awaited one, see ``contains``, ``equals`` and ``empty``.
        timeout: seconds until the test fails. It is there to end what hangs; how long something may take is not a
            question for a test.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE_S
    while not accept(seen := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s for {what}; last seen: {_shortened(repr(seen))}")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
    return seen


def contains(item: str) -> Callable[[Container[str]], bool]:
    """Accepts a text or a list with this in it."""
    return lambda seen: item in seen


def equals(expected: object) -> Callable[[object], bool]:
    return lambda seen: seen == expected


def empty(seen: object) -> bool:
    """Accepts None, nothing and lists without entries."""
    return not seen


def _shortened(text: str) -> str:
    """Its end, which is the newest of a log."""
    return text if len(text) <= _SHOWN else f"… {text[-_SHOWN:]}"
