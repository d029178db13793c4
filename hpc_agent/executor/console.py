"""Console of one run: on disk first, then to the server, and to the terminal or a log file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import IO

from hpc_agent.api.events import EventsApi
from hpc_agent.clock import Clock
from hpc_agent.logs import EventLog
from hpc_agent.retry import Budget
from hpc_agent.runs import node_files
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.telemetry.console_pipe import ConsolePipe
from hpc_agent.telemetry.shipper import INTERVAL_S, ConsoleSource, Shipper
from hpc_agent.telemetry.spool import Spool

log = EventLog("console")

STORED_WITHIN_S = 5.0
"""How long the last lines may take to the disk; a file server that needs longer holds up no final status."""
_TAIL_BYTES = 128 * 1024
_TAIL_LOOKS = 100
_TAIL_INTERVAL_S = 0.05
_ECHO_INTERVAL_S = 0.1
_ECHO_BLOCK = 256 * 1024


class Console:
    """Console of one run. ``echoes`` get every byte too (standard output, a log file); ``ship`` is false with
    ``--disable-monitoring``."""

    def __init__(
        self,
        directory: RunDirectory,
        source: ConsoleSource,
        events: EventsApi,
        clock: Clock,
        *,
        start: int = 0,
        ours: Callable[[], bool],
        echoes: tuple[IO[bytes], ...] = (),
        ship: bool = True,
        node: int | None = None,
        interval: float = INTERVAL_S,
    ) -> None:
        """``start``: of the job; what its earlier starts left is sent first. ``ours``: asked before each request.
        ``node``: of a job of many, whose ranks print here. ``interval``: seconds between two requests."""
        own = node_files.console(directory, start, node)
        self._spool = Spool(own.text, own.mark)
        self._clock = clock
        before = [node_files.console(directory, number, node) for number in range(start)]
        earlier = [Spool(files.text, files.mark) for files in before]
        self._pipe: ConsolePipe | None = None
        self._size_at_start = 0
        self._shipper = None
        if ship:
            size = self._written_size
            self._shipper = Shipper(
                self._spool, source, events, clock, ours=ours, earlier=earlier, interval=interval, size=size
            )
        self._echo = Echo(self._spool, echoes, clock, self._written_size) if echoes else None

    @property
    def ships(self) -> bool:
        """Whether the server is to have it; False with ``--disable-monitoring``."""
        return self._shipper is not None

    def start(self) -> None:
        """
        Raises:
            ProcessError: its writer could not be started.
        """
        self._spool.open()
        self._size_at_start = self._spool.size()
        self._pipe = ConsolePipe(self._spool.path)
        if self._shipper:
            self._shipper.start()
        if self._echo:
            self._echo.start()

    @property
    def sink(self) -> int:
        """The descriptor for the stdout and stderr of the task's process, once it is started."""
        assert self._pipe is not None
        return self._pipe.sink

    @property
    def write_error(self) -> str:
        """Error with which the file system refused output, unnoticed by the task's process; empty if it did not."""
        return self._pipe.write_error if self._pipe else ""

    def write_line(self, line: str) -> None:
        """A line of our own among the task's. While its process runs, this waits for no file system."""
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        if self._pipe and not self._pipe.closed:
            self._pipe.write(data)
        else:
            self._spool.write(data)

    def _written_size(self) -> int | None:
        """Size of the file as its writer knows it; None where there is none."""
        return (self._pipe.size or self._size_at_start) if self._pipe and not self._pipe.closed else None

    def tail(self) -> str:
        """The end of what the process printed, once all of it is in the file, or after five seconds."""
        assert self._pipe is not None
        size = -1
        for _ in range(_TAIL_LOOKS):
            if self._pipe.empty and self._spool.size() == size:
                break
            size = self._spool.size()
            self._clock.sleep(_TAIL_INTERVAL_S)
        return self._spool.read(max(self._spool.size() - _TAIL_BYTES, 0), _TAIL_BYTES).decode("utf-8", "replace")

    def drop(self) -> None:
        """Send nothing more: another run has the console now."""
        if self._shipper:
            self._shipper.drop()
        if self._pipe:
            self._pipe.close(STORED_WITHIN_S)
        self._spool.close()

    def finish(self, budget: Budget) -> bool:
        """Send the rest; False if the server did not take all of it within the budget, and may be asked again, or if
        the file system does not take it."""
        if self._pipe:
            seconds = budget.seconds if self._pipe.closed else min(budget.seconds, STORED_WITHIN_S)
            if not self._pipe.close(seconds):
                return False
        if self._echo:
            self._echo.finish()
        sent = self._shipper.finish(budget) if self._shipper else True
        self._spool.close()
        return sent


class Echo:
    """Echo of a running process: ``start`` before it, ``finish`` after it. Earlier lines are not repeated."""

    def __init__(
        self, spool: Spool, targets: Sequence[IO[bytes]], clock: Clock, size: Callable[[], int | None] = lambda: None
    ) -> None:
        """``size``: as in ``Shipper``."""
        self._spool = spool
        self._size = size
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
        while not self._clock.wait(self._done, _ECHO_INTERVAL_S):
            if self._size() != self._offset:
                self._copy()

    def _copy(self) -> None:
        while data := self._spool.read(self._offset, _ECHO_BLOCK):
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
