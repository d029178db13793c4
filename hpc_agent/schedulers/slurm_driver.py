"""Runs Slurm's commands. What they say is understood in ``slurm``; what they fail to say is never a verdict."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hpc_agent import process
from hpc_agent.clock import SYSTEM
from hpc_agent.config.settings import SlurmSettings
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import (
    Accepted,
    Doubt,
    JobRecord,
    JobState,
    LiveJob,
    Refused,
    Submission,
    Uncertain,
    unanswered,
)
from hpc_agent.domain.room import Room
from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.logs import Events
from hpc_agent.schedulers import slurm
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.environment import for_queries, scrubbed
from hpc_agent.schedulers.slurm_answers import named_jobs, parse_sbatch, refuses_parsable

log = Events("schedulers.slurm")

_BEFORE = timedelta(hours=1)
"""Where sacct begins to look: whatever the clocks say, before the submission. A time to come is an error to it."""
_DISABLED = "accounting storage is disabled"


class SlurmScheduler:
    """The user's view of one Slurm cluster, through the commands on PATH."""

    name = "slurm"

    def __init__(self, settings: SlurmSettings, *, cluster: str = "", environ: Mapping[str, str] | None = None) -> None:
        """``cluster`` beats Slurm's own name; ``environ`` is our own when not given."""
        self._settings = settings
        self._cluster = cluster
        own = os.environ if environ is None else environ
        self._job_environ = scrubbed(own)
        self._query_environ = for_queries(own)
        self._user = str(os.getuid())
        self._has_sacct = settings.accounting != "none"
        self._unknown_words: set[str] = set()
        self._parsable = True
        """False once a site's wrapper of sbatch has refused the option."""

    def cluster(self) -> str:
        if not self._cluster:
            self._cluster = self._own_name()
            if not self._cluster:
                raise SchedulerUnavailableError(
                    "scontrol show config names no cluster: set hpc.cluster in clearml.conf"
                )
        return self._cluster

    def _own_name(self) -> str:
        return slurm.parse_config(self._ask(slurm.show_config())).get("ClusterName", "")

    def submit(self, request: SubmitRequest) -> Submission:
        since = SYSTEM.now()
        said = self._submit_once(request)
        if self._parsable and refuses_parsable(said):
            said = self._without_parsable(request, said, since)
        return self._unless_elsewhere(request, said) if isinstance(said, Accepted) and said.cluster else said

    def _submit_once(self, request: SubmitRequest) -> Submission:
        """sbatch's answer. A job that it did not name clearly is looked up by its name."""
        argv = slurm.sbatch(request, self._settings.sbatch_args, parsable=self._parsable)
        since = SYSTEM.now()
        try:
            answer = process.run(
                argv, timeout=self._settings.sbatch_timeout, env=self._job_environ, cwd=request.workdir
            )
        except ProcessError as error:
            return Uncertain(str(error))
        said = parse_sbatch(answer.returncode, answer.stdout, answer.stderr, parsable=self._parsable)
        if not isinstance(said, Uncertain) or said.doubt is Doubt.NO_ANSWER:
            return said
        named = said.doubt is Doubt.NO_JOB_ID or named_jobs(answer.stdout, parsable=self._parsable)
        return self._by_name(request.job_name, since) or said if named else said

    def _by_name(self, job_name: str, since: datetime) -> Accepted | None:
        try:
            found = self.find(job_name, since)
        except SchedulerUnavailableError as error:
            log.warning("sbatch named no job clearly, and none can be looked up", name=job_name, error=error)
            return None
        return Accepted(found) if found else None

    def _without_parsable(self, request: SubmitRequest, said: Submission, since: datetime) -> Submission:
        """Once more without an option that a site's wrapper of sbatch may refuse; not where a job may exist."""
        try:
            found = self.find(request.job_name, since)
        except SchedulerUnavailableError:
            return said
        if found is not None:
            return Accepted(found)
        self._parsable = False
        answer = self._submit_once(request)
        # Any other answer is no evidence that it was the option.
        self._parsable = not isinstance(answer, Accepted)
        if not self._parsable:
            log.info("sbatch is called without --parsable from now on: it was refused here")
        return answer

    def _unless_elsewhere(self, request: SubmitRequest, said: Accepted) -> Submission:
        """A job on another cluster shows in no answer to us: it would be called lost while it runs."""
        try:
            own = self._own_name()
            if said.cluster == own:
                return said
            names = self._ask(slurm.squeue_name(said.job, said.cluster)).splitlines()
            if request.job_name not in (name.strip() for name in names):
                return Uncertain(
                    f"sbatch named job {said.job} on cluster {said.cluster}, which is not called {request.job_name}: "
                    "nothing was cancelled",
                    Doubt.NO_JOB_ID,
                )
            self._run(slurm.scancel([said.job], cluster=said.cluster, name=request.job_name))
        except SchedulerUnavailableError as error:
            return Uncertain(f"job {said.job} went to cluster {said.cluster}: {error}")
        return Refused(
            f"job {said.job} went to cluster {said.cluster} and was cancelled; only jobs of {own} are followed here: "
            "take --clusters out of hpc.slurm.sbatch_args or the template"
        )

    def live_jobs(self) -> Sequence[LiveJob]:
        jobs = [slurm.live_job(row) for row in self._squeue()]
        self._report_unknown(jobs)
        return jobs

    def room(self) -> Room:
        return Room()

    def find(self, job_name: str, since: datetime) -> JobId | None:
        rows = self._squeue(ended=True, name=job_name)
        found = slurm.newest_of_name((slurm.ended_job(row) for row in rows), job_name, since)
        if found is None and self._has_sacct:
            records = self._sacct(slurm.sacct(since - _BEFORE, name=job_name, user=self._user))
            found = slurm.newest_of_name((record for _, record in records), job_name, since)
        return found

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        """From accounting, and of what it has no verdict on from the controller, which remembers some minutes."""
        if not jobs:
            return {}
        found: dict[JobId, JobRecord] = {}
        silence: SchedulerUnavailableError | None = None
        if self._has_sacct:
            try:
                found = slurm.newest(self._sacct(slurm.sacct(min(jobs.values()) - _BEFORE, jobs=jobs)), jobs)
            except SchedulerUnavailableError as error:
                silence = error
        unclear = {job: at for job, at in jobs.items() if job not in found or not found[job].state.is_final}
        if unclear:
            try:
                rows = self._squeue(ended=True)
            except SchedulerUnavailableError as error:
                if silence is not None:
                    raise silence from error
                silence = error
            else:
                found |= slurm.newest(((row.id, slurm.ended_job(row)) for row in rows), unclear)
        if silence is not None:
            log.warning("a source of records gave no answer", jobs=len(unclear), error=silence)
            found |= {job: unanswered(job) for job in unclear if job not in found}
        return found

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        if not jobs:
            return
        answer = self._run(slurm.scancel(jobs, only_pending=only_pending))
        if not slurm.cancelled(answer.returncode, answer.stderr):
            raise SchedulerUnavailableError(f"scancel ended with exit code {answer.returncode}: {answer.last_words}")

    def release(self, jobs: Sequence[JobId]) -> None:
        answer = self._run(slurm.release(jobs))
        if not answer.ok:
            raise SchedulerUnavailableError(f"scontrol release failed: {answer.last_words}")

    def _squeue(self, *, ended: bool = False, name: str = "") -> list[slurm.QueueRow]:
        text = self._ask(slurm.squeue(self._user, ended=ended, name=name))
        try:
            return slurm.parse_squeue(text)
        except ValueError as error:
            raise SchedulerUnavailableError(f"squeue printed what cannot be understood: {error}") from error

    def _sacct(self, argv: Sequence[str]) -> list[tuple[JobId, JobRecord]]:
        """The records that sacct knows; none, from now on, where accounting turns out to be switched off."""
        if self._settings.accounting == "auto" and shutil.which("sacct", path=self._query_environ.get("PATH")) is None:
            return self._without_accounting("there is no sacct")
        answer = self._run(argv)
        if _DISABLED in answer.stderr and self._settings.accounting == "auto":
            return self._without_accounting(_DISABLED)
        try:
            return [(raw, _with_name(record)) for raw, record in slurm.parse_sacct(_usable(answer))]
        except ValueError as error:
            raise SchedulerUnavailableError(f"sacct printed what cannot be understood: {error}") from error

    def _without_accounting(self, why: str) -> list[tuple[JobId, JobRecord]]:
        log.info("no accounting here: only jobs of the last minutes can be asked after", why=why)
        self._has_sacct = False
        return []

    def _ask(self, argv: Sequence[str]) -> str:
        return _usable(self._run(argv))

    def _run(self, argv: Sequence[str]) -> process.Completed:
        try:
            return process.run(argv, timeout=self._settings.command_timeout, env=self._query_environ)
        except ProcessError as error:
            raise SchedulerUnavailableError(f"Slurm gave no information: {error}") from error

    def _report_unknown(self, jobs: Iterable[LiveJob]) -> None:
        for job in jobs:
            if job.state is JobState.UNKNOWN and job.raw_state not in self._unknown_words:
                self._unknown_words.add(job.raw_state)
                log.warning("unknown state, taken as not ended", job=job.id, state=job.raw_state)


def _with_name(record: JobRecord) -> JobRecord:
    """The name of who cancelled it, where sacct gives a number."""
    if not record.cancelled_by.isdigit():
        return record
    try:
        return replace(record, cancelled_by=pwd.getpwuid(int(record.cancelled_by)).pw_name)
    except (KeyError, OverflowError):
        return replace(record, cancelled_by=f"user {record.cancelled_by}")


def _usable(answer: process.Completed) -> str:
    """What a query printed. Exit code ≠ 0, or nothing but words on stderr, is no information."""
    if not answer.ok or (not answer.stdout.strip() and answer.stderr.strip()):
        raise SchedulerUnavailableError(
            f"{answer.argv[0]} ended with exit code {answer.returncode}: {answer.last_words or 'it said nothing'}"
        )
    return answer.stdout
