"""What a pass must know of the passes before: since when a job is gone, and whether its record stays the same.

It lies in the run directories too, so that ``daemon --once`` from cron has the patience of a daemon that stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hpc_agent.clock import Clock
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.decide import Sight
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import Events
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.runs.records import Seen

log = Events("memory")


@dataclass(frozen=True)
class _Entry:
    """Times are seconds on the clock that never jumps."""

    gone_since: float | None = None
    final_since: float | None = None
    record: str = ""


class Memory:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[Attempt, _Entry] = {}

    def forget(self, attempt: Attempt) -> None:
        self._entries.pop(attempt, None)

    def add_to(self, sight: Sight, directory: RunDirectory) -> Sight:
        """``sight`` with ``gone_for``, ``final_for`` and ``steady``, which this pass is now part of."""
        now = self._clock.monotonic()
        before = self._entries.get(sight.attempt) or self._recalled(directory)
        over = sight.status is not None and sight.status is not TaskStatus.IN_PROGRESS
        entry = _Entry(
            gone_since=None if sight.jobs else _first(before.gone_since, now),
            final_since=_first(before.final_since, now) if over else None,
            record=repr(sight.record) if sight.record else "",
        )
        if self._entries.get(sight.attempt) != entry:
            self._entries[sight.attempt] = entry
            if entry != before and (sight.submitted or sight.claimed):
                self._write(entry, directory)
        return replace(
            sight,
            gone_for=_age(entry.gone_since, now),
            final_for=_age(entry.final_since, now),
            steady=bool(entry.record) and entry.record == before.record,
        )

    def _recalled(self, directory: RunDirectory) -> _Entry:
        try:
            seen = directory.seen()
        except (HpcAgentError, OSError) as error:
            log.warning("what was seen before cannot be read: patience starts anew", folder=directory.path, error=error)
            seen = None
        if seen is None:
            return _Entry()
        return _Entry(self._monotonic(seen.gone_since), self._monotonic(seen.final_since), seen.record)

    def _write(self, entry: _Entry, directory: RunDirectory) -> None:
        seen = Seen(
            gone_since=self._wall(entry.gone_since), final_since=self._wall(entry.final_since), record=entry.record
        )
        try:
            directory.write_seen(seen)
        except OSError as error:
            log.warning("what was seen cannot be written", folder=directory.path, error=error)

    def _monotonic(self, wall: datetime | None) -> float | None:
        if wall is None:
            return None
        # A clock that was set back makes nothing older.
        return self._clock.monotonic() - max((self._clock.now() - wall).total_seconds(), 0.0)

    def _wall(self, moment: float | None) -> datetime | None:
        if moment is None:
            return None
        return self._clock.now() - timedelta(seconds=self._clock.monotonic() - moment)


def _first(before: float | None, now: float) -> float:
    return now if before is None else before


def _age(since: float | None, now: float) -> float:
    return 0.0 if since is None else now - since
