"""Waits for the user's process, and climbs the ladder TERM → KILL when it has to end."""

from __future__ import annotations

import signal
from collections.abc import Callable

from hpc_agent.clock import Clock
from hpc_agent.errors import ProcessError
from hpc_agent.executor.stop import StopRequest
from hpc_agent.process import Grace, Supervised

_TICK_S = 0.2
"""How long a stop waits to be noticed at most; the process's own end is noticed at once."""


class Supervisor:
    """``run`` once. ``say`` takes lines for the task's console."""

    def __init__(
        self, child: Supervised, say: Callable[[str], None], stop: StopRequest, clock: Clock, grace: Grace
    ) -> None:
        self._child = child
        self._say = say
        self._stop = stop
        self._clock = clock
        self._grace = grace
        self._term_at: float | None = None
        self._kill_at: float | None = None

    def run(self) -> int:
        """Until the process ended and its group is gone; returns its exit code (negative: the signal that ended it).

        Raises:
            ProcessError: it outlived SIGKILL.
        """
        while (code := self._child.wait(_TICK_S)) is None:
            self._ladder()
        # Whatever it left behind must not outlive it: nobody would count its time or read its output.
        self._child.signal_group(signal.SIGKILL)
        return code

    def _ladder(self) -> None:
        if self._stop.why is None:
            return
        now = self._clock.monotonic()
        if self._term_at is None:
            self._term_at = now
            self._say(f"Stopping: {self._stop.why.value}; it has {self._grace.term:g} s to end")
            self._child.signal_group(signal.SIGTERM)
        elif self._kill_at is None and now - self._term_at > self._grace.term:
            self._kill_at = now
            self._say(f"Still running {self._grace.term:g} s after SIGTERM: killing it")
            self._child.signal_group(signal.SIGKILL)
        elif self._kill_at is not None and now - self._kill_at > self._grace.kill:
            raise ProcessError(
                f"process {self._child.pid} is still there {self._grace.kill:g} s after SIGKILL "
                "(it hangs in the kernel, usually on a file system)"
            )
