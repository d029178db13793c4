"""Echo of the spooled console on a terminal or in a log file while it grows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import IO

from hpc_agent.clock import Clock
from hpc_agent.logs import EventLog
from hpc_agent.telemetry.spool import Spool

log = EventLog("echo")

_INTERVAL_S = 0.1
_BLOCK = 256 * 1024


class Echo:
    """Echo of a running process: ``start`` before it, ``finish`` after it. Earlier lines are not repeated."""

    def __init__(self, spool: Spool, targets: Sequence[IO[bytes]], clock: Clock) -> None:
        self._spool = spool
        self._targets = list(targets)
        self._clock = clock
        self._offset = spool.size()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="echo", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Copy the rest."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        self._copy()

    def _loop(self) -> None:
        while not self._clock.wait(self._done, _INTERVAL_S):
            self._copy()

    def _copy(self) -> None:
        while data := self._spool.read(self._offset, _BLOCK):
            self._offset += len(data)
            for target in list(self._targets):
                self._write(target, data)

    def _write(self, target: IO[bytes], data: bytes) -> None:
        """A reader that left, or a full disk, ends this echo and not the task."""
        try:
            target.write(data)
            target.flush()
        except OSError as error:
            log.warning("console.echo_ended", error=error)
            self._targets.remove(target)
