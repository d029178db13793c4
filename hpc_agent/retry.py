"""Retries: what may be tried again, for how long and how often. The sleep is injected."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.errors import HpcAgentError

T = TypeVar("T")

_JITTER = random.Random()  # noqa: S311 - not a secret
"""Not the module's functions: a program that has seeded those gets what it seeded, whatever thread waits meanwhile."""


class Budget(msgspec.Struct, frozen=True):
    """Seconds in which a kind of call may be repeated; pauses double from ``first_pause`` up to ``longest_pause``."""

    seconds: float
    first_pause: float = 0.5
    longest_pause: float = 30.0


ONCE = Budget(0)
"""Heartbeats and other calls whose next turn comes soon anyway."""
INTERACTIVE = Budget(20)
"""A user waits at a terminal."""
ROUTINE = Budget(120)
"""Claims, starts, reads of a job: a restart of the server is waited for."""
FINAL = Budget(6 * 3600)
"""Where no daemon goes on from what is on disk: the end of a run that no other process can report."""
NETWORK = Budget(300, first_pause=5, longest_pause=60)
"""Git remotes and package indexes: one that is away for some minutes fails no task."""
NETWORK_BRIEFLY = Budget(60, first_pause=5)
"""The same, for what a task may do without."""

_LONGEST_PASS_PAUSE_S = 120.0


def next_pause(pause: float) -> float:
    """Seconds until the next pass after one that failed, where the last pause was ``pause``: twice that, up to 120."""
    return min(2 * pause, _LONGEST_PASS_PAUSE_S)


_AWAY = (
    # names
    r"could not resolve host|failed to lookup address|name or service not known|temporary failure in name resolution"
    r"|no such host"
    # connections
    r"|connection (?:refused|reset|closed|timed out)|connection was (?:reset|closed|non-properly terminated)"
    r"|couldn't connect|failed to connect|unable to connect|no route to host|network is (?:unreachable|down)"
    r"|timed out|operation too slow|i/o timeout|early eof|unexpected disconnect|hung up unexpectedly"
    # answers
    r"|returned error: (?:429|5\d\d)|status server error \(5|429 too many requests|50[0234] server error"
    # uv itself has found that the error may pass
    r"|request failed after \d+ retries"
)
"""Compiled where an error came, not by each job that starts."""

_REFUSES = "remote error:"
"""Prefix of what a remote itself printed, after which it hangs up."""


def is_away(message: str) -> bool:
    """Whether this message of git or an installer means that another machine gives no answer, or none for now.

    Not if the repository or package does not exist, or is not accessible.
    """
    return _REFUSES not in message and re.search(_AWAY, message, re.IGNORECASE) is not None


def _retryable(error: HpcAgentError) -> bool:
    return error.retryable


def retry(
    action: Callable[[], T], budget: Budget, clock: Clock, *, again: Callable[[HpcAgentError], bool] = _retryable
) -> T:
    """Call ``action`` until it succeeds, fails for good, or the budget is spent.

    ``again`` selects the errors that are worth it; ``retry_after`` seconds on one, if any, are respected.

    Raises:
        HpcAgentError: the last error.
    """
    deadline = clock.monotonic() + budget.seconds
    pause = budget.first_pause
    while True:
        try:
            return action()
        except HpcAgentError as error:
            wait = max(pause * _JITTER.uniform(0.7, 1.3), getattr(error, "retry_after", 0.0))
            if not again(error) or clock.monotonic() + wait > deadline:
                raise
        clock.sleep(wait)
        pause = min(pause * 2, budget.longest_pause)
