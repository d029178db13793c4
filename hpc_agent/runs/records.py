"""What stands in a run directory: small JSON files, each written whole or not at all.

``runs/<task>/<attempt>/`` is the memory of an attempt, on the shared file system: the daemon and the job write it,
either may die at any line, and the other reads what is there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records. Times are UTC."""


class Submission(Record, frozen=True, kw_only=True):
    """``submit.json``: written as ``intended`` before sbatch is called, so that a death in between is noticed."""

    state: Literal["intended", "accepted", "uncertain"]
    at: datetime
    queue: str
    """Queue id of the entry."""
    queue_name: str = ""
    cluster: str = ""
    """As ``Scheduler.cluster()`` names it: job ids mean nothing elsewhere."""
    job: str = ""
    tries: int = 1
    """How often this attempt was handed to the scheduler."""
    message: str = ""


class Claim(Record, frozen=True, kw_only=True):
    """``claim.json``: ``intent`` stands before the task is taken off its queue, ``won`` right after."""

    state: Literal["intent", "won"]
    at: datetime
    owner: str
    """Who claims: ``job:<id>`` for a job, ``agent:<host>:<pid>`` for an agent that refuses or runs it by hand."""
    queue: str = ""
    host: str = ""
    worker: str = ""


class ExitReport(Record, frozen=True, kw_only=True):
    """``exit.json``: how the task ended, written before its final status is posted."""

    status: Literal["completed", "failed", "stopped", "none"]
    """The status to post; ``none`` when somebody else already set one."""
    reason: str
    exit_code: int
    at: datetime
    posted: bool = False
    """Whether the server has the status and the whole log."""
    interrupted: bool = False
    """The job was told to end (SIGTERM): if the same job starts again, the task goes on."""


class Seen(Record, frozen=True, kw_only=True):
    """``seen.json``: what the passes so far have seen, for the next daemon and for ``daemon --once``."""

    gone_since: datetime | None = None
    """When a pass first found no live job."""
    final_since: datetime | None = None
    """When a pass first found the task's status no longer ``in_progress``."""
    record: str = ""
    """The job's terminal record, as text to compare with."""


class Settled(Record, frozen=True, kw_only=True):
    """``settled.json``: nothing is left to do for this attempt; written by the daemon."""

    at: datetime
    why: str
