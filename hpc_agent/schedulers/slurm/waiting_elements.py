"""Elements of job arrays that are cancelled while they wait: Slurm clears them in the record of their array and keeps
none of their own (22.05, 24.11), while all other jobs leave one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from hpc_agent.clock import Clock
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, JobState
from hpc_agent.schedulers.slurm.answers import QueueRow, ended_job, state

_SHORTEST_S = 30.0


class WaitingElements:
    """Those that were listed as waiting a moment ago. One that has no row among all jobs of the controller, which keeps
    any other job for ``remembered_for`` seconds, while others of its array have, was cancelled."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[JobId, float] = {}

    def note(self, rows: Iterable[QueueRow]) -> None:
        """Of all jobs that are listed."""
        now = self._clock.monotonic()
        self._seen |= {row.id: now for row in rows if "_" in row.id and state(row.word) is JobState.PENDING}

    def cancelled(
        self, missing: Iterable[JobId], rows: Sequence[QueueRow], remembered_for: float
    ) -> dict[JobId, JobRecord]:
        """Records of those of the ``missing`` jobs that were. ``rows``: all that the controller knows, and each could
        be read."""
        since = self._clock.monotonic() - (remembered_for - _SHORTEST_S)
        self._seen = {job: at for job, at in self._seen.items() if at > since}
        others = {_array_of(row.id): row for row in rows if "_" in row.id}
        # A row of its own, in which the caller has not found its job, is of an older one with the same id.
        listed = {row.id for row in rows}
        found = {}
        for job in missing:
            other = others.get(_array_of(job))
            if job in self._seen and job not in listed and other is not None:
                record = replace(ended_job(other), id=job, state=JobState.CANCELLED, raw_state="CANCELLED")
                found[job] = replace(record, exit_code=None, signal=0, started=None, ended=None, nodes="", reason="")
        return found


def of_whole_arrays(records: Iterable[tuple[JobId, JobRecord]], jobs: Iterable[JobId]) -> list[tuple[JobId, JobRecord]]:
    """A record for each of these elements, from the row of its array: sacct has one row without indexes (``7``) for all
    elements that had not started when the array was cancelled. One that has a row of its own needs none.

    For some seconds an element that has started may have such a row too, until slurmdbd knows its index (22.05)."""
    rows = {raw: record for raw, record in records if record.id == raw and "_" not in raw and _never_ran(record)}
    elements = [job for job in jobs if "_" in job and _array_of(job) in rows]
    return [(job, replace(rows[JobId(_array_of(job))], id=job)) for job in elements]


def _never_ran(record: JobRecord) -> bool:
    return record.state is JobState.CANCELLED and not record.nodes


def _array_of(job: JobId) -> str:
    return job.partition("_")[0]
