"""The attempts that are not settled, for the next process: each of a cron's would list thousands of folders."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from hpc_agent.clock import Clock
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, QueueId, TaskId
from hpc_agent.file_records import CorruptFileError, ensure_directory, read_record, write_record
from hpc_agent.runs.attempt_records import Record

_HOLDS = timedelta(minutes=10)
"""Then all folders are listed again: what a process had begun when it died, or an agent run by hand, is found so."""


class _OpenAttempt(Record, frozen=True, kw_only=True):
    listed_at: datetime
    attempts: tuple[tuple[str, str], ...] = ()
    """Task and id of each."""


class OpenAttemptIndex:
    """A file for each set of queues. It spares time; nothing is wrong where it is missing or old."""

    def __init__(self, folder: Path, queues: Sequence[QueueId], clock: Clock) -> None:
        digest = hashlib.sha256("\n".join(sorted(queues)).encode()).hexdigest()[:12]
        self._file = folder / f"{digest}.json"
        self._clock = clock
        self._listed_at: datetime | None = None

    def load(self) -> set[Attempt] | None:
        """What the process before us left; None if all folders must be listed, which counts as done from now on."""
        if self._listed_at is None:
            with contextlib.suppress(CorruptFileError, OSError):
                before = read_record(self._file, _OpenAttempt)
                if before is not None and abs(self._clock.now() - before.listed_at) < _HOLDS:
                    self._listed_at = before.listed_at
                    return {Attempt(TaskId(task), AttemptId(id)) for task, id in before.attempts}
        self._listed_at = self._clock.now()
        return None

    def save(self, attempts: Collection[Attempt]) -> None:
        if self._listed_at is None:
            return
        record = _OpenAttempt(
            listed_at=self._listed_at, attempts=tuple(sorted((attempt.task, attempt.id) for attempt in attempts))
        )
        with contextlib.suppress(OSError):
            ensure_directory(self._file.parent, mode=0o700)
            write_record(self._file, record)
