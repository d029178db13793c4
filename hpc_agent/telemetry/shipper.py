"""Sends the spooled console to the server, in order, moving the mark on acknowledgement only."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from hpc_agent.api.events import Events as EventsService
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import TaskId, WorkerId
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import Events
from hpc_agent.retry import ONCE, Budget
from hpc_agent.telemetry.spool import Mark, Spool, cut
from hpc_agent.wire.event import MAX_MESSAGE_BYTES, log_event

log = Events("shipper")

INTERVAL_S = 0.5
"""A line is readable on the server within this and one request."""
PARTIAL_INTERVAL_S = 10.0
"""How often a progress bar that ends no line is shown."""
BATCH_BYTES = 1024 * 1024
"""One request; the reference's size too, far under every server's limit."""


@dataclass(frozen=True)
class Source:
    """Whose console it is."""

    task: TaskId
    worker: WorkerId
    collapse: bool = True


class Shipper:
    """``start`` and ``finish`` around a running process; ``drain`` alone ships what a dead executor left."""

    def __init__(self, spool: Spool, source: Source, events: EventsService, clock: Clock) -> None:
        self._spool = spool
        self._source = source
        self._events = events
        self._clock = clock
        self._mark = spool.mark()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._partial_at = clock.monotonic()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="shipper", daemon=True)
        self._thread.start()

    def finish(self, budget: Budget) -> bool:
        """Send the rest. False if the server did not take it within the budget: the mark says where to go on."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=budget.seconds + 90)
        return self.drain(budget)

    def drain(self, budget: Budget) -> bool:
        """Send everything up to the end of the file; see ``finish``."""
        try:
            while self._ship(final=True, budget=budget):
                pass
        except (HpcAgentError, OSError) as error:
            log.warning("console not sent", task=self._source.task, error=error)
            return False
        return True

    def _loop(self) -> None:
        while not self._clock.wait(self._stop, INTERVAL_S):
            try:
                while self._ship(final=False, budget=ONCE):
                    if self._stop.is_set():
                        return
            except (HpcAgentError, OSError) as error:
                log.warning("console not sent, will try again", task=self._source.task, error=error)
                self._clock.wait(self._stop, 5.0)

    def _ship(self, *, final: bool, budget: Budget) -> bool:
        """Send one batch; False when there is nothing (more) to send."""
        messages, end = self._batch(final)
        if end == self._mark.offset:
            return False
        now_ms = int(self._clock.now().timestamp() * 1000)
        # Each event gets a later stamp than the one before: the server shows them in that order.
        first = max(self._mark.timestamp_ms + 1, now_ms)
        events = [
            log_event(self._source.task, self._source.worker, text, first + index)
            for index, text in enumerate(messages)
        ]
        self._events.add(events, budget=budget)
        self._mark = Mark(end, first + max(len(events) - 1, 0))
        self._spool.acknowledge(self._mark)
        return True

    def _batch(self, final: bool) -> tuple[list[str], int]:
        offset = self._mark.offset
        data = self._spool.read(offset, BATCH_BYTES)
        last = final and len(data) < BATCH_BYTES
        partial = self._clock.monotonic() - self._partial_at > PARTIAL_INTERVAL_S
        messages: list[str] = []
        position = 0
        while position < len(data):
            rest = data[position:]
            if not (last or partial or b"\n" in rest[:MAX_MESSAGE_BYTES] or len(rest) >= MAX_MESSAGE_BYTES):
                break
            chunk = cut(rest, position, MAX_MESSAGE_BYTES, final=last, collapse=self._source.collapse)
            if chunk is None:
                break
            if chunk.text:
                messages.append(chunk.text)
            position = chunk.end
        if partial and position:
            self._partial_at = self._clock.monotonic()
        return messages, offset + position
