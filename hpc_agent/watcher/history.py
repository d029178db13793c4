"""Observation history: what one pass must know of the passes before, such as for how long a job has been missing.

Kept in a file of the run directory: the next pass may be another process (``daemon --once``), or on another login node.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from hpc_agent.clock import Clock
from hpc_agent.domain.job import UNCONFIRMED_LIMIT_S, JobRecord
from hpc_agent.domain.job_phase import WAITING_STATES, JobSnapshot
from hpc_agent.file_records import CorruptFileError, read_record, write_record
from hpc_agent.runs.attempt_records import Record

_LONGEST_STEP_S = 300.0
"""Two passes count as no further apart than this, whatever the clock says."""
_WORTH_WRITING_S = 10.0
_STABLE_S = 3.0
"""Two passes may follow each other at once, and a job may be on its way back to the queue between them."""

S = TypeVar("S", bound=JobSnapshot)


class ObservationRecord(Record, frozen=True, kw_only=True):
    """``seen.json``: what the passes so far observed of one job.

    Seconds are added up from pass to pass, none for more than a few minutes: a clock that jumps costs no more.
    """

    at: datetime
    submission: int = 0
    """Number of the submission that the job is of; 0 in records of earlier versions."""
    missing_seconds: float = 0.0
    is_gone: bool = False
    unconfirmed_seconds: float = 0.0
    """Gone from the list of jobs, but with no verdict because a source has it for alive or gives no answer."""
    running_seconds: float = 0.0
    is_running: bool = False
    final_seconds: float = 0.0
    is_final: bool = False
    dequeued_seconds: float = 0.0
    is_dequeued: bool = False
    restarts_seen: int = msgspec.field(name="starts_seen", default=0)
    records: str = ""
    """Digest of the records; empty for none."""
    record_for: float = 0.0
    """Seconds for which the records have been the same, up to the time that makes them stable."""


class _TrackedHistory(Record, frozen=True, kw_only=True):
    """``seen.json`` of a tracked job, as earlier versions wrote it."""

    gone_since: datetime | None = None
    doubted_since: datetime | None = None
    running_since: datetime | None = None

    def upgraded(self, now: datetime) -> ObservationRecord:
        return ObservationRecord(
            at=now,
            is_gone=bool(self.gone_since or self.doubted_since),
            missing_seconds=_seconds_since(self.gone_since, now),
            unconfirmed_seconds=_seconds_since(self.doubted_since, now),
            is_running=self.running_since is not None,
            running_seconds=_seconds_since(self.running_since, now),
        )


class ObservationHistory:
    """History of all jobs that one process watches; each has a file of its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[Path, ObservationRecord] = {}
        self._written: dict[Path, ObservationRecord] = {}

    def forget(self, file: Path) -> None:
        """Keep nothing of a job that is watched no more in memory."""
        self._known.pop(file, None)
        self._written.pop(file, None)

    def extend(self, snapshot: S, file: Path) -> S:
        """The snapshot with what only time tells. Where ``file`` cannot be written, waits start over with the next
        process."""
        before = self._before(file)
        now = _next(before, snapshot, self._clock.now())
        self._known[file] = now
        self._keep(file, now)
        return replace(
            snapshot,
            missing_seconds=now.missing_seconds,
            unconfirmed_seconds=now.unconfirmed_seconds,
            running_seconds=now.running_seconds,
            final_seconds=now.final_seconds,
            dequeued_seconds=now.dequeued_seconds,
            restarts_seen=now.restarts_seen,
            record_stable=bool(now.records) and now.record_for >= _STABLE_S,
        )

    def _before(self, file: Path) -> ObservationRecord | None:
        known = self._known.get(file)
        if known is None:
            known = _read(file, self._clock.now())
            if known is not None:
                self._written[file] = known
        return known

    def _keep(self, file: Path, now: ObservationRecord) -> None:
        written = self._written.get(file)
        if written is None and not (now.is_gone or now.is_final or now.restarts_seen or now.is_running):
            return  # nothing to remember of a job that waits
        if written is not None and not _differs(written, now):
            return
        with contextlib.suppress(OSError):
            write_record(file, now)
            self._written[file] = now


def _read(file: Path, now: datetime) -> ObservationRecord | None:
    with contextlib.suppress(OSError):
        try:
            return read_record(file, ObservationRecord)
        except CorruptFileError:
            with contextlib.suppress(CorruptFileError):
                old = read_record(file, _TrackedHistory)
                return old.upgraded(now) if old else None
    return None


def _seconds_since(at: datetime | None, now: datetime) -> float:
    return 0.0 if at is None else max((now - at).total_seconds(), 0.0)


def _next(before: ObservationRecord | None, snapshot: JobSnapshot, now: datetime) -> ObservationRecord:
    submission = snapshot.submitted.submit_count if snapshot.submitted else 0
    if before is None or before.submission not in (0, submission):
        before = ObservationRecord(at=now)  # another job: how long the one before was missing tells nothing of it
    step = min(_seconds_since(before.at, now), _LONGEST_STEP_S)
    is_gone, is_final, is_dequeued = not snapshot.jobs, snapshot.is_withdrawn, snapshot.is_dequeued
    is_running = any(job.state not in WAITING_STATES for job in snapshot.jobs)
    is_unconfirmed = any(not record.state.is_final for record in snapshot.records)
    stays_gone = before.is_gone and is_gone
    unconfirmed_seconds = before.unconfirmed_seconds + step if stays_gone and is_unconfirmed else 0.0
    counts = not is_unconfirmed or unconfirmed_seconds > UNCONFIRMED_LIMIT_S
    records = _digest(snapshot.records)
    return ObservationRecord(
        at=now,
        submission=submission,
        is_gone=is_gone,
        missing_seconds=before.missing_seconds + (step if counts else 0.0) if stays_gone else 0.0,
        unconfirmed_seconds=unconfirmed_seconds,
        is_running=is_running,
        running_seconds=before.running_seconds + step if before.is_running and is_running else 0.0,
        is_final=is_final,
        final_seconds=before.final_seconds + step if before.is_final and is_final else 0.0,
        is_dequeued=is_dequeued,
        dequeued_seconds=before.dequeued_seconds + step if before.is_dequeued and is_dequeued else 0.0,
        restarts_seen=max(before.restarts_seen, snapshot.restart_count),
        records=records,
        record_for=min(before.record_for + step, _STABLE_S) if records == before.records else 0.0,
    )


def _digest(records: Sequence[JobRecord]) -> str:
    return hashlib.sha256(msgspec.json.encode(records)).hexdigest()[:16] if records else ""


def _differs(written: ObservationRecord, now: ObservationRecord) -> bool:
    return _rounded(written, now.at) != _rounded(now, now.at)


def _rounded(record: ObservationRecord, at: datetime) -> ObservationRecord:
    """What of a record is worth a write: the seconds only in steps."""
    return msgspec.structs.replace(
        record,
        at=at,
        missing_seconds=record.missing_seconds // _WORTH_WRITING_S,
        unconfirmed_seconds=record.unconfirmed_seconds // _WORTH_WRITING_S,
        running_seconds=min(record.running_seconds, _RUNNING_WORTH_KNOWING_S) // _WORTH_WRITING_S,
        final_seconds=record.final_seconds // _WORTH_WRITING_S,
        dequeued_seconds=record.dequeued_seconds // _WORTH_WRITING_S,
    )


_RUNNING_WORTH_KNOWING_S = 120.0
"""A job that has run for longer is written down no more while it runs."""
