"""Shipper of the spooled console to the server: in order, each line once, whatever the server does meanwhile.

A batch is written down before it is sent. When its answer is lost, or its sender dies, the server is asked which of its
events it has, and gets the others: sending again blindly would double lines, as the server knows no two events as one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from hpc_agent.api.events import EventsApi as EventsService
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import TaskId, WorkerId
from hpc_agent.errors import ApiError, HpcAgentError, ServerUnreachableError
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE, Budget
from hpc_agent.telemetry.checkpoint import Batch, Checkpoint
from hpc_agent.telemetry.spool import ConsoleChunk, Spool, cut, text_of
from hpc_agent.wire.error_kinds import BODY_TOO_LARGE
from hpc_agent.wire.event import MAX_MESSAGE_BYTES, log_event, sent_bytes

log = EventLog("shipper")

INTERVAL_S = 0.5
"""After a pause a line is readable on the server within this and one request."""
BUSY_INTERVAL_S = 1.0
"""The same for lines that follow others: each batch costs the shared file system six operations or so."""
UNWRITTEN_S = 5.0
"""How long the checkpoint of a batch that was taken may wait for the next one's. A process that dies meanwhile costs
its successor a question to the server."""
PARTIAL_INTERVAL_S = 10.0
"""How often a progress bar that ends no line is shown."""
_OURS_FOR_S = 0.3
BATCH_BYTES = 256 * 1024
"""One request as it is sent. Proxies before servers refuse 1 MiB (nginx's default), some much less."""
SMALLEST_BYTES = 2048
"""What a request is cut down to where more is refused."""
DOUBT_S = 3.0
"""A server of many parts shows an event that it took about a second later; asked sooner it may deny it."""


class ConsoleSource(msgspec.Struct, frozen=True):
    """Source of console lines: task and worker that they are stored under."""

    task: TaskId
    worker: WorkerId
    collapse: bool = True


def _always() -> bool:
    return True


def _unknown() -> None:
    return None


class Shipper:
    """``start`` and ``finish`` around a running process; ``drain`` alone ships what a dead executor left.

    ``ours`` is asked before each request: once it is false, another run has the console, and nothing more is sent.
    ``earlier`` are consoles of the same run, to be sent first. ``rewritable``: the file is a user's own, which may be
    emptied and begun again; then it is sent from its new beginning. ``size``: of the console file, as far as that is
    known without asking the file system, which is asked all the time where it is not.
    """

    def __init__(
        self,
        spool: Spool,
        source: ConsoleSource,
        events: EventsService,
        clock: Clock,
        *,
        ours: Callable[[], bool] = _always,
        earlier: Sequence[Spool] = (),
        rewritable: bool = False,
        interval: float = INTERVAL_S,
        size: Callable[[], int | None] = _unknown,
    ) -> None:
        """``interval``: seconds between two looks for new lines."""
        self._spools = [*earlier, spool]
        self._source = source
        self._events = events
        self._clock = clock
        self._ours = ours
        self._ours_at = float("-inf")
        """When it was last asked for this batch, if the answer was yes."""
        self._rewritable = rewritable
        self._interval = interval
        self._size = size
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._partial_at = clock.monotonic()
        self._most = BATCH_BYTES
        self._last_ms: int | None = None
        """The latest stamp of what the task's console shows; None before the server was asked."""
        self._open(self._spools[0])

    def _open(self, spool: Spool) -> None:
        self._spool = spool
        self._read = (0, b"")
        """The offset of what was read last, and the bytes."""
        self._mark = self._written = spool.mark()
        self._sent_at = self._clock.monotonic()
        self._doubtful_since: float | None = None
        if self._mark.sending is not None:
            # Its writer may have died before or after it was sent, at about the time of its timestamps.
            age = self._clock.now().timestamp() - self._mark.sending.first_ms / 1000
            self._doubtful_since = self._clock.monotonic() - max(age, 0)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="shipper", daemon=True)
        self._thread.start()

    def drop(self) -> None:
        """Send nothing more."""
        self._stop.set()

    def finish(self, budget: Budget) -> bool:
        """Send the rest. False if the server did not take it within the budget: the checkpoint has where to go on."""
        start = self._clock.monotonic()
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=budget.seconds)
            if self._thread.is_alive():
                # It waits for an answer. A second sender would double lines.
                log.warning("console.unacknowledged", task=self._source.task)
                return False
        left = max(budget.seconds - (self._clock.monotonic() - start), 0.0)
        return self.drain(replace(budget, seconds=left))

    def drain(self, budget: Budget) -> bool:
        """Send everything up to the end of the file; see ``finish``. A refusal is tried again too: a proxy's 401 passes
        like its 502."""
        deadline = self._clock.monotonic() + budget.seconds
        pause = budget.first_pause
        while True:
            try:
                while self._ship(final=True):
                    pass
                return self._ours()
            except (HpcAgentError, OSError) as error:
                if self._clock.monotonic() + pause > deadline:
                    log.warning("console.not_sent", task=self._source.task, error=error)
                    return False
            finally:
                self._spool.close_mark()
            self._clock.sleep(pause)
            pause = min(pause * 2, budget.longest_pause)

    def _loop(self) -> None:
        interval, seen = self._interval, None
        while not self._clock.wait(self._stop, interval):
            size = self._size()
            if size is not None and size == seen and not self._is_due():
                interval = self._interval
                continue
            try:
                interval, seen = self._interval, None
                while self._ship(final=False):
                    interval = max(self._interval, BUSY_INTERVAL_S)
                    if self._stop.is_set():
                        return
                    if self._has_all(size):
                        break
                seen = size
            except (HpcAgentError, OSError) as error:
                log.warning("console.send_failed", task=self._source.task, error=error)
                self._clock.wait(self._stop, 5.0)

    def _has_all(self, size: int | None) -> bool:
        return size is not None and self._spool is self._spools[-1] and self._mark.offset >= size

    def _is_due(self) -> bool:
        """Whether there is something to do though nothing was printed: a checkpoint to write, or a line without an end
        to show."""
        now = self._clock.monotonic()
        if self._mark != self._written:
            return now - self._sent_at > UNWRITTEN_S
        offset, data = self._read
        return offset + len(data) > self._mark.offset and now - self._partial_at > PARTIAL_INTERVAL_S

    def _ship(self, *, final: bool) -> bool:
        """Send one batch; False when there is nothing (more) to send, or when it is not ours to send.

        Raises:
            HpcAgentError: it may or may not have been taken.
        """
        self._ours_at = float("-inf")
        if self._rewritable and not self._spool.continues(self._mark):
            log.warning("console.truncated", task=self._source.task)
            self._mark = Checkpoint(0, self._mark.sending.last_ms if self._mark.sending else self._mark.timestamp_ms)
        if self._mark.sending is None and not self._next(final or self._spool is not self._spools[-1]):
            return self._open_next()
        if not self._is_ours():
            return False
        batch = self._mark.sending
        assert batch is not None
        texts = self._without_stored(batch, self._texts(batch))
        if self._is_taken(texts, WorkerId(batch.worker) if batch.worker else self._source.worker):
            self._mark = Checkpoint(batch.ends[-1], batch.last_ms, before=self._checksum(batch.ends[-1]))
            self._sent_at = self._clock.monotonic()
            self._last_ms = None if self._last_ms is None else max(self._last_ms, batch.last_ms)
        else:
            self._mark = msgspec.structs.replace(self._mark, sending=None)
            self._write(self._mark)
        self._doubtful_since = None
        return True

    def _open_next(self) -> bool:
        if self._spool is self._spools[-1] or not self._ours():
            return False
        self._open(self._spools[self._spools.index(self._spool) + 1])
        return True

    def _next(self, final: bool) -> bool:
        """Write down what is sent next; False if there is nothing, or it is not ours."""
        ends = self._cut(final)
        if (not ends and self._mark == self._written) or not self._is_ours():
            return False
        if not ends:
            if final or self._clock.monotonic() - self._sent_at > UNWRITTEN_S:
                self._write(self._mark)
            return False
        now_ms = int(self._clock.now().timestamp() * 1000)
        # Each event gets a later stamp than the one before: the server shows them in that order.
        after = max(self._mark.timestamp_ms, self._shown_until())
        batch = Batch(tuple(ends), max(after + 1, now_ms), self._source.worker)
        self._mark = msgspec.structs.replace(self._mark, sending=batch)
        self._write(self._mark)
        return True

    def _is_ours(self) -> bool:
        """Not asked twice for one batch, unless the file system took its time."""
        now = self._clock.monotonic()
        if now - self._ours_at > _OURS_FOR_S:
            if not self._ours():
                return False
            self._ours_at = now
        return True

    def _write(self, mark: Checkpoint) -> None:
        self._spool.remember(mark)
        self._written = mark

    def _checksum(self, offset: int) -> str:
        return self._spool.checksum(offset) if self._rewritable else ""

    def _shown_until(self) -> int:
        """By other starts, other attempts and the daemon too: the clocks of their nodes may be ahead of ours."""
        if self._last_ms is None:
            self._last_ms = self._events.latest(self._source.task, budget=ONCE)
        return self._last_ms

    def _cut(self, final: bool) -> list[int]:
        """Where the events of the next batch end."""
        offset = self._mark.offset
        data = self._spool.read(offset, self._most)
        self._read = offset, data
        last = final and len(data) < self._most
        partial = self._clock.monotonic() - self._partial_at > PARTIAL_INTERVAL_S
        longest = min(MAX_MESSAGE_BYTES, self._most)
        ends: list[int] = []
        position = size = 0
        while position < len(data):
            rest = data[position:]
            if not (last or partial or b"\n" in rest[:longest] or len(rest) >= longest):
                break
            chunk = self._next_chunk(rest, position, longest, final=last)
            if chunk is None:
                break
            size += sent_bytes(chunk.text)
            if ends and size > self._most:
                break
            position = chunk.end
            ends.append(offset + position)
        if partial and position:
            self._partial_at = self._clock.monotonic()
        return ends

    def _next_chunk(self, rest: bytes, position: int, longest: int, *, final: bool) -> ConsoleChunk | None:
        """One event: of lines that grow as they are sent (escapes of colours: sixfold) fewer than of others."""
        while True:
            chunk = cut(rest, position, longest, final=final, collapse=self._source.collapse)
            if chunk is None or sent_bytes(chunk.text) <= self._most or longest <= SMALLEST_BYTES // 8:
                return chunk
            longest //= 2

    def _texts(self, batch: Batch) -> list[tuple[int, str]]:
        """Stamp and text of each event."""
        texts = []
        begin = self._mark.offset
        for index, end in enumerate(batch.ends):
            text = text_of(self._piece(begin, end), collapse=self._source.collapse)
            if text:
                texts.append((batch.first_ms + index, text))
            begin = end
        return texts

    def _piece(self, begin: int, end: int) -> bytes:
        """Of the console: as it was just read, else from its file."""
        offset, data = self._read
        if offset <= begin and end <= offset + len(data):
            return data[begin - offset : end - offset]
        return self._spool.read(begin, end - begin)

    def _without_stored(self, batch: Batch, texts: list[tuple[int, str]]) -> list[tuple[int, str]]:
        if self._doubtful_since is None:
            return texts
        self._clock.sleep(min(max(self._doubtful_since + DOUBT_S - self._clock.monotonic(), 0), DOUBT_S))
        worker = WorkerId(batch.worker) if batch.worker else self._source.worker
        stored = self._events.timestamps(self._source.task, worker, batch.first_ms, batch.last_ms, budget=ONCE)
        return [(stamp, text) for stamp, text in texts if stamp not in stored]

    def _is_taken(self, texts: Sequence[tuple[int, str]], worker: WorkerId) -> bool:
        """Send these; False if they are too large for one request: nothing was taken, and they are to be cut again.

        Raises:
            HpcAgentError: they may or may not have been taken.
        """
        task = self._source.task
        try:
            stored = self._events.add([log_event(task, worker, text, stamp) for stamp, text in texts], budget=ONCE)
        except ServerUnreachableError as error:
            if error.uncertain:
                self._doubtful_since = self._clock.monotonic()
            raise
        except ApiError as error:
            if error.code != BODY_TOO_LARGE.code or self._most <= SMALLEST_BYTES:
                raise
            size = sum(sent_bytes(text) for _, text in texts)
            self._most = max(min(self._most, size) // 2, SMALLEST_BYTES)
            log.warning("console.request_too_large", task=task, bytes=size, now=self._most)
            return False
        if 0 < stored < len(texts):
            self._doubtful_since = self._clock.monotonic()
            raise ServerUnreachableError(f"the server stored {stored} of {len(texts)} pieces of the console of {task}")
        return True
