"""What may be tried again, for how long and how often. The sleep is injected."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from hpc_agent.clock import Clock
from hpc_agent.errors import HpcAgentError

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """Seconds in which a kind of call may be repeated; pauses double from ``first_pause`` up to ``longest_pause``."""

    seconds: float
    first_pause: float = 0.5
    longest_pause: float = 30.0


ONCE = Budget(0)
"""Heartbeats and other calls whose next turn comes soon anyway."""
INTERACTIVE = Budget(20)
"""A person waits at a terminal."""
ROUTINE = Budget(120)
"""Claims, starts, reads of a job: a restart of the server is waited for."""
FINAL = Budget(6 * 3600)
"""Where no daemon goes on from what is on disk: the last words of a run that nobody else can say."""
NETWORK = Budget(300, first_pause=5, longest_pause=60)
"""Git remotes and package indexes: one that is away for some minutes fails no task."""
NETWORK_BRIEFLY = Budget(60, first_pause=5)
"""The same, for what a task may do without."""

_AWAY = re.compile(
    # names
    r"could not resolve host|failed to lookup address|name or service not known|temporary failure in name resolution"
    r"|no such host"
    # connections
    r"|connection (?:refused|reset|closed|timed out)|connection was (?:reset|closed|non-properly terminated)"
    r"|couldn't connect|failed to connect|unable to connect|no route to host|network is (?:unreachable|down)"
    r"|timed out|operation too slow|i/o timeout|early eof|unexpected disconnect|hung up unexpectedly"
    # answers
    r"|returned error: (?:429|5\d\d)|status server error \(5|429 too many requests|50[0234] server error"
    # uv has told errors that pass from others itself
    r"|request failed after \d+ retries",
    re.IGNORECASE,
)

_REFUSES = "remote error:"
"""How git tells a remote's own words, after which the remote hangs up."""


def is_away(words: str) -> bool:
    """Whether git or an installer says with these words that another machine gives no answer, or none for now.

    A repository or package that is not there, or not for us, is said in other words.
    """
    return _REFUSES not in words and _AWAY.search(words) is not None


def _retryable(error: HpcAgentError) -> bool:
    return error.retryable


def retry(
    action: Callable[[], T], budget: Budget, clock: Clock, *, again: Callable[[HpcAgentError], bool] = _retryable
) -> T:
    """Call ``action`` until it succeeds, fails for good, or the budget is spent.

    ``again`` says which errors are worth it; ``retry_after`` seconds on one, if any, are respected.

    Raises:
        HpcAgentError: the last error.
    """
    deadline = clock.monotonic() + budget.seconds
    pause = budget.first_pause
    while True:
        try:
            return action()
        except HpcAgentError as error:
            wait = max(pause * random.uniform(0.7, 1.3), getattr(error, "retry_after", 0.0))  # noqa: S311 - jitter
            if not again(error) or clock.monotonic() + wait > deadline:
                raise
        clock.sleep(wait)
        pause = min(pause * 2, budget.longest_pause)
