"""Nodes on which jobs failed soon after their start: a broken node is always free and would get every waiting task."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from hpc_agent.clock import Clock
from hpc_agent.domain.attempt import Attempt
from hpc_agent.file_records import CorruptFileError, read_record, write_record
from hpc_agent.logs import EventLog
from hpc_agent.runs.attempt_records import Record

log = EventLog("nodes")

DEATHS = 2
"""Number of failed jobs after which a node is avoided."""
_FOR = timedelta(hours=24)
"""How long a node is avoided: by then it is repaired, or Slurm has drained it."""


class NodeFailure(Record, frozen=True, kw_only=True):
    node: str
    attempt: str
    at: datetime


class _NodeFailures(Record, frozen=True, kw_only=True):
    deaths: tuple[NodeFailure, ...] = ()


class BadNodes:
    """Failures of nodes, in one file for all daemons of a site. Two that write at once lose one of them."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def blame(self, node: str, attempt: Attempt) -> bool:
        """Count a failure; True if the node is avoided from now on."""
        before = self._read()
        if any((death.node, death.attempt) == (node, attempt.id) for death in before):
            return node in self.avoided()
        deaths = (*before, NodeFailure(node=node, attempt=attempt.id, at=self._clock.now()))
        try:
            write_record(self._path, _NodeFailures(deaths=deaths))
        except OSError as error:
            log.error("node.failure_not_recorded", node=node, error=error)
        avoided = node in _bad(deaths)
        log.warning("node.failure", node=node, attempt=attempt.id, avoided=avoided)
        return avoided

    def avoided(self) -> list[str]:
        return _bad(self._read())

    def _read(self) -> tuple[NodeFailure, ...]:
        try:
            record = read_record(self._path, _NodeFailures) or _NodeFailures()
        except (CorruptFileError, OSError) as error:
            log.error("node.failures_unreadable", file=self._path, error=error)
            return ()
        since = self._clock.now() - _FOR
        return tuple(death for death in record.deaths if death.at > since)


def _bad(deaths: tuple[NodeFailure, ...]) -> list[str]:
    nodes = [death.node for death in deaths]
    return sorted({node for node in nodes if nodes.count(node) >= DEATHS})
