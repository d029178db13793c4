"""The console of one run: on disk first, then to the server, and to whoever looks at the terminal or a log file."""

from __future__ import annotations

from typing import IO

from hpc_agent.api.events import Events
from hpc_agent.clock import Clock
from hpc_agent.retry import Budget
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.telemetry.echo import Echo
from hpc_agent.telemetry.shipper import Shipper, Source
from hpc_agent.telemetry.spool import Spool


class Console:
    """``echoes`` get every byte too (standard output, a log file); ``ship`` is false with ``--disable-monitoring``."""

    def __init__(
        self,
        directory: RunDirectory,
        source: Source,
        events: Events,
        clock: Clock,
        *,
        echoes: tuple[IO[bytes], ...] = (),
        ship: bool = True,
    ) -> None:
        self._spool = Spool(directory.console, directory.console_offset)
        self._shipper = Shipper(self._spool, source, events, clock) if ship else None
        self._echo = Echo(self._spool, echoes, clock) if echoes else None

    def start(self) -> None:
        if self._shipper:
            self._shipper.start()
        if self._echo:
            self._echo.start()

    @property
    def sink(self) -> int:
        """The descriptor for the stdout and stderr of the task's process."""
        return self._spool.sink()

    def say(self, line: str) -> None:
        """A line of our own among the task's."""
        self._spool.write(f"{line}\n".encode())

    def finish(self, budget: Budget) -> bool:
        """Send the rest; False if the server did not take all of it within the budget."""
        if self._echo:
            self._echo.finish()
        sent = self._shipper.finish(budget) if self._shipper else True
        self._spool.close()
        return sent
