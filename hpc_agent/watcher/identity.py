"""Identity of a job: whether a job, or a record, is of a certain submission. Its id alone is not evidence: ids are used
again, and one may have been read out of a site's greeting."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, LiveJob, unconfirmed_record
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.logs import EventLog
from hpc_agent.schedulers.base import ANY_CLOCK, CLOCK_SKEW, Scheduler

log = EventLog("job")

_LONG_NAME = 200
"""Bytes. sacct keeps 255 of a name, and squeue was asked for 256."""


class ExpectedJob(msgspec.Struct, frozen=True):
    """Expected job: what is known of it before it is observed.

    ``since``: time of the submission, by our clock. ``confirmed``: the job was seen under its name, or wrote its id
    down itself; people rename their jobs, and so do the jobs. ``has_unique_name``: no other job has the name.
    """

    name: str
    since: datetime
    confirmed: bool = False
    has_unique_name: bool = False

    def is_new(self, submitted: datetime | None) -> bool:
        """Whether a job submitted at this time can be the one."""
        return submitted is not None and submitted >= self.since - CLOCK_SKEW

    def carries_name(self, name: str, submitted: datetime | None) -> bool:
        """Whether name and time are those of the submission; a unique name needs no time."""
        return carries_name(name, self.name) and (self.has_unique_name or self.is_new(submitted))

    def is_renamed(self, job: LiveJob) -> bool:
        """Whether a job with the expected id and another name is the one."""
        return self.confirmed and self.is_new(job.submitted)

    def own_record(self, record: JobRecord) -> JobRecord | None:
        """The record, unless it is of another job with the same id."""
        if self.carries_name(record.name, record.submitted):
            return record
        if record.submitted is None and not record.state.is_final:
            return record  # an answer that did not come
        if self.confirmed and (record.submitted is None or self.is_new(record.submitted)):
            return record
        if record.name:
            return None
        # For its first seconds slurmdbd knows no name.
        is_own = self.has_unique_name and self.is_new(record.submitted)
        return record if is_own else unconfirmed_record(record.id)


def carries_name(seen: str, given: str) -> bool:
    """Whether a job that the scheduler calls ``seen`` has the name that it was submitted with."""
    shown, wanted = " ".join(seen.split()), " ".join(given.split())
    is_cut = len(seen.encode()) >= _LONG_NAME and wanted.startswith(shown.rstrip("\ufffd"))
    return bool(wanted) and (shown == wanted or is_cut)


def own_records(scheduler: Scheduler, missing: Mapping[JobId, ExpectedJob]) -> Mapping[JobId, JobRecord]:
    """Records of jobs that are not listed, in one query. Without an answer all of them are unconfirmed."""
    if not missing:
        return {}
    try:
        # The job's name tells more about whose it is than a clock.
        found = scheduler.records({job: _since(expected) for job, expected in missing.items()})
    except SchedulerUnavailableError as error:
        log.warning("job.records_unavailable", jobs=len(missing), error=error)
        return {job: unconfirmed_record(job) for job in missing}
    own = {job: missing[job].own_record(record) for job, record in found.items() if job in missing}
    return {job: record for job, record in own.items() if record is not None}


def _since(expected: ExpectedJob) -> datetime:
    return expected.since - ANY_CLOCK if expected.has_unique_name else expected.since
