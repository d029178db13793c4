"""What one pass must know of the passes before: for how long a job has been gone, whether its record changed.

Kept in the run directory, for the next pass may be another process (``daemon --once``) or on another login node.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.job import UNCONFIRMED_LIMIT_S, JobState
from hpc_agent.domain.snapshot import AttemptSnapshot
from hpc_agent.file_records import CorruptFileError
from hpc_agent.runs.attempt_records import ObservationRecord
from hpc_agent.runs.directory import RunDirectory

_LONGEST_STEP_S = 300.0
"""Two passes are never further apart than this, whatever the clock says."""
_WORTH_WRITING_S = 10.0
_STEADY_S = 3.0
"""Two passes may follow each other at once, and a job may be on its way back to the queue between them."""


class ObservationHistory:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[Attempt, ObservationRecord] = {}
        self._written: dict[Attempt, ObservationRecord] = {}

    def forget(self, attempt: Attempt) -> None:
        self._known.pop(attempt, None)
        self._written.pop(attempt, None)

    def consider(self, sight: AttemptSnapshot, directory: RunDirectory) -> AttemptSnapshot:
        """The sight with what only time tells."""
        if sight.submitted is None and sight.claimed is None and sight.entry is not None:
            return sight
        before = self._before(sight.attempt, directory)
        now = _next(before, sight, self._clock.now())
        self._known[sight.attempt] = now
        self._keep(sight.attempt, directory, now)
        return replace(
            sight,
            missing_seconds=now.missing_seconds,
            unconfirmed_seconds=now.unconfirmed_seconds,
            final_seconds=now.final_seconds,
            starts_seen=now.starts_seen,
            record_stable=now.record is not None and now.record_for >= _STEADY_S,
        )

    def _before(self, attempt: Attempt, directory: RunDirectory) -> ObservationRecord | None:
        known = self._known.get(attempt)
        if known is None:
            with contextlib.suppress(CorruptFileError, OSError):
                known = directory.patience()
            if known is not None:
                self._written[attempt] = known
        return known

    def _keep(self, attempt: Attempt, directory: RunDirectory, now: ObservationRecord) -> None:
        written = self._written.get(attempt)
        if written is None and not (now.is_gone or now.is_final or now.starts_seen):
            return  # nothing to remember of a job that lives
        if written is not None and not _differs(written, now):
            return
        # Where it cannot be written, waits start over with the next daemon.
        with contextlib.suppress(OSError):
            directory.write_patience(now)
            self._written[attempt] = now


def _next(before: ObservationRecord | None, sight: AttemptSnapshot, now: datetime) -> ObservationRecord:
    step = 0.0 if before is None else min(max((now - before.at).total_seconds(), 0.0), _LONGEST_STEP_S)
    is_gone, is_final = not sight.jobs, sight.taken_back
    was_gone = before is not None and before.is_gone
    doubted = sight.record is not None and not sight.record.state.is_final
    unconfirmed_seconds = before.unconfirmed_seconds + step if before and was_gone and is_gone and doubted else 0.0
    counts = not doubted or unconfirmed_seconds > UNCONFIRMED_LIMIT_S
    is_same = before is not None and sight.record == before.record
    return ObservationRecord(
        at=now,
        is_gone=is_gone,
        missing_seconds=before.missing_seconds + step * counts if before and was_gone and is_gone else 0.0,
        unconfirmed_seconds=unconfirmed_seconds,
        is_final=is_final,
        final_seconds=before.final_seconds + step if before and before.is_final and is_final else 0.0,
        starts_seen=max(before.starts_seen if before else 0, _starts(sight)),
        record=sight.record,
        record_for=min(before.record_for + step, _STEADY_S) if before and is_same else 0.0,
    )


def _starts(sight: AttemptSnapshot) -> int:
    """A job that waits, or runs, for the n-th time again; not one that is just being taken down to be requeued."""
    owner = sight.owner
    return owner.restarts if owner and owner.state in (JobState.PENDING, JobState.REQUEUED, JobState.RUNNING) else 0


def _differs(written: ObservationRecord, now: ObservationRecord) -> bool:
    def rough(patience: ObservationRecord) -> ObservationRecord:
        return msgspec.structs.replace(
            patience,
            at=now.at,
            missing_seconds=patience.missing_seconds // _WORTH_WRITING_S,
            unconfirmed_seconds=patience.unconfirmed_seconds // _WORTH_WRITING_S,
            final_seconds=patience.final_seconds // _WORTH_WRITING_S,
        )

    return rough(written) != rough(now)
