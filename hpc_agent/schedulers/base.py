"""What the daemon needs of a batch scheduler. Silence is never a verdict: see each method's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import CurrentJob, JobRecord, LiveJob, SubmitResult
from hpc_agent.domain.resources import Resources

CLOCK_SKEW = timedelta(seconds=60)
"""How far the controller's clock may be behind ours; ids are reused after days, not minutes."""
ANY_CLOCK = timedelta(days=1)
"""How far it may be off where a job's name alone tells whose it is."""


@dataclass(frozen=True)
class SubmitRequest:
    """A rendered script, ready to be submitted."""

    script: Path
    job_name: str
    workdir: Path
    """Where the job starts; exists."""
    output: Path
    """File that takes the job's own stdout and stderr; its folder exists."""
    resources: Resources
    """What the script asks for; for schedulers that do not read ``#SBATCH`` lines."""


@dataclass(frozen=True)
class JobOrigin:
    """What serves the jobs, for a person."""

    name: str
    """With its version where it has one: ``Slurm 24.11.5``."""
    notes: Sequence[str] = ()
    """What follows from it, a sentence each."""


class Scheduler(Protocol):
    """Implementations: ``slurm.driver.SlurmScheduler``, ``local.scheduler.LocalScheduler``."""

    @property
    def name(self) -> str:
        """``slurm`` or ``local``."""

    def cluster(self) -> str:
        """The cluster's name, part of every attempt's identity."""

    def about(self) -> JobOrigin:
        """
        Raises:
            SchedulerUnavailableError: no usable answer.
        """

    def submit(self, request: SubmitRequest) -> SubmitResult:
        """Submit once. Never raises for what the scheduler says or fails to say: the four answers cover it."""

    def live_jobs(self) -> Sequence[LiveJob]:
        """All jobs of this user that the scheduler still lists, in one query.

        Raises:
            SchedulerUnavailableError: no usable answer; nothing is known, not even that a job is gone.
        """

    def room(self) -> Capacity:
        """What may be submitted now, as the last ``live_jobs`` saw it. More than that would only wait here, where
        nobody can put it into another order, and not in its queue."""

    def find(self, job_name: str, since: datetime) -> JobId | None:
        """The job submitted under this name at or after ``since``, live or ended; None if certainly none is known.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        """What is known of jobs that it lists no more, each with the time of our own submission (ids are reused).

        A final record is a verdict. One that is not final says that there is none yet: a source has the job for alive,
        or one that may know more gave no answer (``job.unanswered``). A job without an entry is known to none of the
        sources, and all of them answered. A record's name is empty where the scheduler does not know it yet. The
        number of queries does not depend on that of the jobs.

        Raises:
            SchedulerUnavailableError: no usable answer from any source.
        """

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        """Cancel these jobs; with ``only_pending`` those that started meanwhile are left alone.

        Each must be known for the one that is meant. Its id alone is no evidence: it may have been read out of a site's
        greeting, or be used again. A job is known when the scheduler lists it, or did so before, under the name that it
        was submitted with and not submitted before that; or when it wrote its id down itself, from within. What was
        known once stays so: people rename their jobs, and so do the jobs. Any other job is left alone, and the log says
        so, and the task where there is one.

        Raises:
            SchedulerUnavailableError: it is not known whether the request arrived.
        """

    def release(self, jobs: Sequence[JobId]) -> None:
        """Let jobs try again that the scheduler holds because it could not start them.

        Raises:
            SchedulerUnavailableError: it is not known whether the request arrived, or they are held by others.
        """


class CurrentJobClient(Protocol):
    """What a job can do about itself. Implementations: ``schedulers.own_job``."""

    def look(self) -> CurrentJob | None:
        """What the scheduler says of it; None where it gives no answer."""

    def requeue(self) -> str:
        """Have it started again from its first line; empty, or why that cannot be."""
