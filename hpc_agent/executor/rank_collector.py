"""Collector of what the ranks of a node print: their FIFOs, and the program that merges them into its console."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc_agent.errors import ProcessError
from hpc_agent.logs import EventLog
from hpc_agent.process.background import Helper
from hpc_agent.telemetry import rank_output

log = EventLog("ranks")

_START_S = 30.0


class RankCollector:
    """Collector of one node, from before its ranks start until ``finish``."""

    def __init__(self, folder: Path, prefixes: Sequence[str], sink: int, on_end: Callable[[int, str], None]) -> None:
        """``on_end`` gets the local number of a rank whose output has ended, and its last lines, in a thread.

        Raises:
            ProcessError: the program could not be started.
        """
        self._on_end = on_end
        for number in range(len(prefixes)):
            os.mkfifo(folder / f"rank.{number}", 0o600)
        reads, orders = os.pipe()
        reports, writes = os.pipe()
        program = [sys.executable, "-I", "-S", rank_output.__file__, str(folder), *prefixes]
        self._orders = orders
        try:
            self._helper = Helper(program, stdin=reads, stdout=sink, stderr=writes)
        finally:
            os.close(reads)
            os.close(writes)
        self._started = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._read, args=(reports,), name="ranks", daemon=True).start()
        if not self._started.wait(_START_S):
            raise ProcessError(f"the program that collects the ranks' output did not start within {_START_S:g} s")

    def finish(self, seconds: float) -> None:
        """All that was printed is read; what still holds a FIFO open is waited for up to ``seconds``."""
        os.close(self._orders)
        if not self._ended.wait(seconds):
            log.warning("ranks.output_not_read")
        self._helper.wait(1.0)

    def _read(self, reports: int) -> None:
        with os.fdopen(reports, "rb") as lines:
            for line in lines:
                try:
                    report = json.loads(line)
                    rank, tail = int(report["rank"]), str(report["tail"])
                except (ValueError, KeyError, TypeError):
                    log.warning("ranks.collector_failed", line=line.decode("utf-8", "replace").rstrip())
                    continue
                if rank < 0:
                    self._started.set()
                else:
                    self._on_end(rank, tail)
        self._ended.set()
