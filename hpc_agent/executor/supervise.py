"""Runs the user's process: output to the spool, and the ladder TERM → KILL when it has to end."""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Callable

from hpc_agent.clock import Clock
from hpc_agent.errors import ProcessError
from hpc_agent.executor.stop import StopRequest
from hpc_agent.process import Grace, Supervised

_BLOCK = 256 * 1024
_TICK_S = 0.2
_LINGER_S = 1.0
"""How long the pipe is read after the process ended: its output is there, a child with the pipe may never end."""


class Supervisor:
    """``run`` once. ``sink`` takes output, ``say`` a line of ours."""

    def __init__(
        self,
        child: Supervised,
        sink: Callable[[bytes], None],
        say: Callable[[str], None],
        stop: StopRequest,
        clock: Clock,
        grace: Grace,
    ) -> None:
        self._child = child
        self._sink = sink
        self._say = say
        self._stop = stop
        self._clock = clock
        self._grace = grace
        self._open = True
        self._term_at: float | None = None
        self._kill_at: float | None = None

    def run(self) -> int:
        """Until the process ended and its group is gone; returns its exit code (negative: the signal that ended it).

        Raises:
            ProcessError: it outlived SIGKILL.
        """
        descriptor = self._child.output.fileno()
        os.set_blocking(descriptor, False)
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while (code := self._child.poll()) is None:
                self._step(selector, descriptor)
                self._ladder()
            self._drain(selector, descriptor)
            # Whatever it left behind must not outlive it: nobody reads its output or counts its time.
            self._child.signal_group(signal.SIGKILL)
        self._child.output.close()
        return code

    def _step(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        if not self._open:
            self._child.wait(_TICK_S)
        elif selector.select(_TICK_S):
            self._read(selector, descriptor)

    def _read(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _BLOCK)
        except BlockingIOError:
            return
        if data:
            self._sink(data)
        else:
            selector.unregister(descriptor)
            self._open = False

    def _drain(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        deadline = self._clock.monotonic() + _LINGER_S
        while self._open and (left := deadline - self._clock.monotonic()) > 0:
            if selector.select(min(left, _TICK_S)):
                self._read(selector, descriptor)

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
