"""Guard against a stalled file server: calls that touch the shared file system delay no signal and no status."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import TypeVar

from hpc_agent.cancellation import in_background
from hpc_agent.logs import EventLog

log = EventLog("executor")

T = TypeVar("T")

_FIRST_WAIT_S = 5.0
_NEXT_WAIT_S = 0.5
"""Once a call was not answered, until one is."""


class StallGuard:
    """Bounds the wait for calls that touch the shared file system."""

    def __init__(self) -> None:
        self._stalls = False

    def call(self, action: Callable[[], T], default: T) -> T:
        """What ``action`` returns or raises; ``default`` if that takes too long, while it goes on in its thread."""
        future = in_background(action, "file server")
        concurrent.futures.wait([future], _NEXT_WAIT_S if self._stalls else _FIRST_WAIT_S)
        self._stalls = not future.done()
        if self._stalls:
            log.warning("file_system.stalled", setting="hpc.root")
            return default
        return future.result()
