"""Selection of the records that belong to our jobs: ids and names are used again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob, unconfirmed_record
from hpc_agent.schedulers.base import CLOCK_SKEW

_ACCOUNTING_LAG = timedelta(seconds=15)
"""How long after its end a job may be missing in accounting, on a busy machine."""


def newest_of_name(records: Iterable[JobRecord | LiveJob], name: str, since: datetime) -> JobId | None:
    """The job last submitted under this name, not before ``since``."""
    earliest = since - CLOCK_SKEW
    ours = [(r.submitted, r.id) for r in records if r.name == name and r.submitted and r.submitted >= earliest]
    return max(ours)[1] if ours else None


def newest(records: Iterable[tuple[JobId, JobRecord]], jobs: Mapping[JobId, datetime]) -> dict[JobId, JobRecord]:
    """For each of our jobs its newest record, if that is ours.

    A record submitted before our own submission is of an earlier job with the same id; one that does not say when it
    was submitted may be ours or not, so that it is there but no verdict. A newest record that is not final (the job was
    requeued, or accounting lags) says that there is no verdict yet.
    """
    found: dict[JobId, JobRecord] = {}
    for raw, record in records:
        job = record.id if record.id in jobs else raw
        if job not in jobs:
            continue
        if record.submitted is None:
            found.setdefault(job, unconfirmed_record(job))
            continue
        if record.submitted < jobs[job] - CLOCK_SKEW:
            continue
        known = found.get(job)
        if known is None or known.submitted is None or record.submitted >= known.submitted:
            found[job] = record
    return found


def once_accounting_may_know(record: JobRecord, now: datetime) -> JobRecord:
    """The controller's record; nothing yet of a job cancelled a moment ago: who did it, accounting alone says."""
    if record.state is JobState.CANCELLED and record.ended and abs(now - record.ended) < _ACCOUNTING_LAG:
        return unconfirmed_record(record.id)
    return record
