"""Faults at the calls of a simulated site: a process that is killed there, an answer that is lost, an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


class ProcessKilledError(BaseException):
    """The process was killed at this call. No handler of errors may catch it, as none catches SIGKILL."""


@dataclass
class Faults:
    """What happens at one of the next calls to the server or the scheduler."""

    kill_in: int | None = None
    """After so many more calls the caller is killed, at the one that follows."""
    lose_in: int | None = None
    """After so many more calls one gets no answer."""
    after: bool = False
    """Whether the call of ``kill_in`` or ``lose_in`` is carried out before that happens."""

    raise_at: int | None = None
    """Which call of a pass, counted from 1, raises an error that no code foresees."""
    calls: int = 0
    """Calls of this pass."""
    made: list[str] = field(default_factory=list)
    """The names of all calls."""
    before: Callable[[str], object] = lambda _name: None
    """Called with the name of each call before it is carried out."""
    errors: dict[str, Exception] = field(default_factory=dict)
    """The error that each call of this name raises, ``tasks.get_by_id``."""
    omit_rows: bool = False
    """Whether the next list of tasks lacks them, though they are there."""

    def call(self, name: str, carry_out: Callable[[], T], unreachable: Callable[[], Exception]) -> T:
        """The answer of ``carry_out``, unless it is this call that something happens to."""
        self.before(name)
        self.calls += 1
        self.made.append(name)
        if self.calls == self.raise_at:
            raise LookupError("of a kind that no code foresees")
        if name in self.errors:
            raise self.errors[name]
        self.kill_in, kill = _count_down(self.kill_in)
        self.lose_in, lose = _count_down(self.lose_in)
        if not kill and not lose:
            return carry_out()
        if self.after:
            carry_out()
        raise ProcessKilledError if kill else unreachable()


def _count_down(left: int | None) -> tuple[int | None, bool]:
    """What is left after this call, and whether it is the one."""
    if left is None:
        return None, False
    return (left - 1, False) if left else (None, True)
