"""Calls that touch the shared file system, with a bound: a file server that stalls delays no signal and no status."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from hpc_agent.logs import EventLog

log = EventLog("executor")

T = TypeVar("T")

_PATIENCE_S = 5.0
_IMPATIENCE_S = 0.5


class FileServer:
    """Waits ``_PATIENCE_S`` for an answer, and much less from the first one on that did not come."""

    def __init__(self) -> None:
        self._stalls = False

    def ask(self, call: Callable[[], T], otherwise: T) -> T:
        """What ``call`` returns or raises; ``otherwise`` if that takes too long: then it goes on in a thread."""
        running = _Call(call)
        running.thread.join(_IMPATIENCE_S if self._stalls else _PATIENCE_S)
        self._stalls = running.thread.is_alive()
        if self._stalls:
            log.warning("file_system.stalled", setting="hpc.root")
            return otherwise
        if running.error is not None:
            raise running.error
        return running.answers[0]


class _Call(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self.answers: list[T] = []
        self.error: BaseException | None = None
        self._call = call
        self.thread = threading.Thread(target=self._run, name="file server", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.answers.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again by who asked
            self.error = error
