"""Scheduler of Slurm: runs the argument lists of ``commands`` and reads what they print by ``answers``.

A command that gives no answer is never evidence of what became of a job.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import (
    Accepted,
    JobRecord,
    JobState,
    LiveJob,
    OutcomeUnknown,
    Refused,
    SubmitResult,
    UnclearAnswer,
    unconfirmed_record,
)
from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.logs import EventLog
from hpc_agent.process import programs
from hpc_agent.schedulers.base import JobOrigin, SubmitRequest
from hpc_agent.schedulers.job_environment import scrubbed
from hpc_agent.schedulers.queries import printed, run
from hpc_agent.schedulers.rate_limit import TokenBucket
from hpc_agent.schedulers.records import newest, newest_of_name, once_accounting_may_know
from hpc_agent.schedulers.slurm import answers, commands
from hpc_agent.schedulers.slurm.array_script import waiting_elements
from hpc_agent.schedulers.slurm.commands import for_queries
from hpc_agent.schedulers.slurm.delimited_table import new_delimiter
from hpc_agent.schedulers.slurm.sbatch_answers import named_jobs, parse_sbatch, refuses_parsable
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.schedulers.slurm.versions import notes, parse_version
from hpc_agent.schedulers.slurm.waiting_elements import WaitingElements, of_whole_arrays

log = EventLog("schedulers.slurm")

_BEFORE = timedelta(hours=1)
"""Where sacct begins to look: whatever the clocks say, before the submission. A time to come is an error to it."""
_QUERIES_OF_A_PASS = 3
"""squeue, sacct, and one more command: they come before submissions."""
_DISABLED = "accounting storage is disabled"


class SlurmScheduler:
    """The user's view of one Slurm cluster, through the commands on PATH."""

    name = "slurm"

    def __init__(
        self,
        settings: SlurmSettings,
        *,
        cluster: str = "",
        environ: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        """``cluster`` beats Slurm's own name; ``environ`` is our own when not given."""
        self._settings = settings
        self._cluster = cluster
        self._requests = TokenBucket(settings.requests_per_second, settings.request_burst, clock)
        own = os.environ if environ is None else environ
        self._job_environ = scrubbed(own)
        self._query_environ = for_queries(own)
        self._user = str(os.getuid())
        self._has_sacct = settings.accounting != "none"
        self._known_config: Mapping[str, str] = {}
        self._reported: set[tuple[str, str]] = set()
        self._listed_all = True
        """Whether each row of the last ``live_jobs`` could be read."""
        self._waiting = WaitingElements(clock)
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

    def about(self) -> JobOrigin:
        config = self._config()
        version = parse_version(config.get("SLURM_VERSION", ""))
        return JobOrigin(f"Slurm {version or 'of unknown version'}, cluster {self.cluster()}", notes(version, config))

    def _own_name(self) -> str:
        return self._config().get("ClusterName", "")

    def _min_job_age(self) -> float:
        """Seconds for which the controller remembers a job that has ended, at least; 0 where that is not known."""
        number = self._config().get("MinJobAge", "").partition(" ")[0]
        return float(number) if number.isdigit() else 0.0

    def max_array_size(self) -> int:
        """Elements of one array, at most; 0 where there are none.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """
        # The largest index is one less than this, and 0 is the first.
        allowed = self._config().get("MaxArraySize", "")
        return int(allowed) if allowed.isdigit() and int(allowed) > 1 else 0

    def _config(self) -> Mapping[str, str]:
        if not self._known_config:
            self._known_config = answers.parse_config(self._ask(commands.show_config()))
        return self._known_config

    def submit(self, request: SubmitRequest) -> SubmitResult:
        since = SYSTEM.now()
        result = self._submit_once(request)
        if self._parsable and refuses_parsable(result):
            result = self._without_parsable(request, result, since)
        return self._unless_elsewhere(request, result) if isinstance(result, Accepted) and result.cluster else result

    def _submit_once(self, request: SubmitRequest) -> SubmitResult:
        """sbatch's answer. A job that it did not name clearly is looked up by its name."""
        argv = commands.sbatch(request, self._settings.sbatch_args, parsable=self._parsable)
        since = SYSTEM.now()
        self._requests.take()
        try:
            answer = programs.run(
                argv, timeout=self._settings.sbatch_timeout, env=self._job_environ, cwd=request.workdir
            )
        except ProcessError as error:
            return OutcomeUnknown(str(error))
        result = parse_sbatch(answer.returncode, answer.stdout, answer.stderr, parsable=self._parsable)
        if not isinstance(result, OutcomeUnknown) or result.doubt is UnclearAnswer.NO_ANSWER:
            return result
        named = result.doubt is UnclearAnswer.NO_JOB_ID or named_jobs(answer.stdout, parsable=self._parsable)
        return self._by_name(request.job_name, since) or result if named else result

    def _by_name(self, job_name: str, since: datetime) -> Accepted | None:
        try:
            found = self.find(job_name, since)
        except SchedulerUnavailableError as error:
            log.warning("sbatch.job_unidentified", name=job_name, error=error)
            return None
        return Accepted(found) if found else None

    def _without_parsable(self, request: SubmitRequest, result: SubmitResult, since: datetime) -> SubmitResult:
        """Once more without an option that a site's wrapper of sbatch may refuse; not where a job may exist."""
        try:
            found = self.find(request.job_name, since)
        except SchedulerUnavailableError:
            return result
        if found is not None:
            return Accepted(found)
        self._parsable = False
        answer = self._submit_once(request)
        # Any other answer is not evidence that it was the option.
        self._parsable = not isinstance(answer, Accepted)
        if not self._parsable:
            log.info("sbatch.parsable_refused")
        return answer

    def _unless_elsewhere(self, request: SubmitRequest, result: Accepted) -> SubmitResult:
        """A job on another cluster shows in no answer to us: it would be called lost while it runs."""
        try:
            own = self._own_name()
            if result.cluster == own:
                return result
            names = self._ask(commands.squeue_name(result.job, result.cluster)).splitlines()
            if request.job_name not in (name.strip() for name in names):
                return OutcomeUnknown(
                    f"sbatch named job {result.job} on cluster {result.cluster}, which is not called "
                    f"{request.job_name}: nothing was cancelled",
                    UnclearAnswer.NO_JOB_ID,
                )
            self._run(commands.scancel([result.job], cluster=result.cluster, name=request.job_name))
        except SchedulerUnavailableError as error:
            return OutcomeUnknown(f"job {result.job} went to cluster {result.cluster}: {error}")
        return Refused(
            f"job {result.job} went to cluster {result.cluster} and was cancelled; only jobs of {own} are followed "
            "here: take --clusters out of hpc.slurm.sbatch_args or the template"
        )

    def live_jobs(self) -> Sequence[LiveJob]:
        answer = self._squeue()
        self._listed_all = not answer.unreadable
        self._waiting.note(answer.rows)
        self._report_unreadable(answer)
        return [answers.live_job(row) for row in answer.rows]

    def room(self) -> Capacity:
        """As many as the rate limit allows, less the queries of a pass."""
        free = self._requests.available()
        kept = min(_QUERIES_OF_A_PASS, self._settings.request_burst // 2)
        return Capacity(
            jobs=None if free is None else max(free - kept, 0),
            at_once=self._settings.submissions_at_once,
        )

    def find(self, job_name: str, since: datetime) -> JobId | None:
        answer = self._squeue(ended=True, name=job_name)
        records = [answers.ended_job(row) for row in answer.rows]
        found = newest_of_name(records, job_name, since)
        if found is not None:
            return found
        unreadable = answer.unreadable
        if self._has_sacct:
            accounting = self._sacct(since - _BEFORE, name=job_name, user=self._user)
            found = newest_of_name((record for _, record in accounting.records), job_name, since)
            records += [record for _, record in accounting.records]
            unreadable += accounting.unreadable
        unreadable += sum(record.name == job_name and record.submitted is None for record in records)
        if found is None and unreadable:
            raise SchedulerUnavailableError(f"{unreadable} rows cannot be read; job {job_name} may be one of them")
        return found

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        """From accounting, and of what it has no verdict on from the controller, which remembers some minutes.

        Where a row of squeue or sacct could not be read, a job in no other row counts as there.
        """
        if not jobs:
            return {}
        found: dict[JobId, JobRecord] = {}
        silence: SchedulerUnavailableError | None = None
        unreadable = 0
        if self._has_sacct:
            try:
                # Of one that never started sacct finds the row by the array's id only.
                arrays = dict.fromkeys(job.partition("_")[0] for job in jobs)
                accounting = self._sacct(min(jobs.values()) - _BEFORE, jobs=map(JobId, arrays))
                # An element's own row comes after that of its array: with the same time it is the newest.
                found = newest([*of_whole_arrays(accounting.records, jobs), *accounting.records], jobs)
                unreadable += accounting.unreadable
            except SchedulerUnavailableError as error:
                silence = error
        unclear = {job: at for job, at in jobs.items() if job not in found or not found[job].state.is_final}
        if unclear:
            try:
                queue = self._squeue(ended=True)
            except SchedulerUnavailableError as error:
                if silence is not None:
                    raise silence from error
                silence = error
            else:
                listed = newest(((row.id, answers.ended_job(row)) for row in queue.rows), unclear)
                if self._has_sacct and silence is None:
                    now = SYSTEM.now()
                    listed = {job: once_accounting_may_know(record, now) for job, record in listed.items()}
                found |= listed
                unreadable += queue.unreadable
                missing = [job for job in unclear if job not in found and "_" in job]
                if missing and not queue.unreadable:
                    found |= self._waiting.cancelled(missing, queue.rows, self._min_job_age())
        if silence is not None:
            log.warning("records.source_unavailable", jobs=len(unclear), error=silence)
        if silence is not None or unreadable or not self._listed_all:
            found |= {job: unconfirmed_record(job) for job in unclear if job not in found}
        if not self._listed_all:
            # It may be back, in the row that live_jobs could not read.
            found |= {job: unconfirmed_record(job) for job, record in found.items() if record.state.may_be_requeued}
        return found

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        if not jobs:
            return
        answer = self._run(commands.scancel(jobs, only_pending=only_pending))
        if not answers.cancelled(answer.returncode, answer.stderr):
            raise SchedulerUnavailableError(f"scancel ended with exit code {answer.returncode}: {answer.last_words}")

    def release(self, jobs: Sequence[JobId]) -> None:
        answer = self._run(commands.release(jobs))
        if not answer.ok:
            raise SchedulerUnavailableError(f"scontrol release failed: {answer.last_words}")

    @property
    def user(self) -> str:
        """Number of the user whose jobs are meant."""
        return self._user

    def ask(self, argv: Sequence[str]) -> str:
        """What a query prints.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """
        return self._ask(argv)

    def test_submission(self, script: Path, workdir: Path, partition: str) -> tuple[int, str]:
        """Exit code and words of ``sbatch --test-only``; its times are UTC.

        Raises:
            SchedulerUnavailableError: it could not be run.
        """
        words = [*([f"--partition={partition}"] if partition else []), str(script)]
        argv = commands.sbatch_test(words, self._settings.sbatch_args)
        self._requests.take()
        answer = run(argv, {**self._job_environ, "TZ": "UTC"}, self._settings.sbatch_timeout, workdir)
        return answer.returncode, f"{answer.stderr}\n{answer.stdout}"

    def _squeue(self, *, ended: bool = False, name: str = "") -> answers.QueueAnswer:
        delimiter = new_delimiter()
        text = self._ask(commands.squeue(self._user, delimiter, ended=ended, name=name))
        try:
            return answers.parse_squeue(text, delimiter)
        except ValueError as error:
            raise SchedulerUnavailableError(f"squeue printed no table of jobs: {error}") from error

    def _sacct(
        self, since: datetime, *, jobs: Iterable[JobId] = (), name: str = "", user: str = ""
    ) -> answers.AccountingAnswer:
        """The records that sacct knows; none, from now on, where accounting turns out to be switched off."""
        delimiter = new_delimiter()
        text = self.ask_accounting(commands.sacct(since, delimiter, jobs=jobs, name=name, user=user))
        if text is None:
            return answers.AccountingAnswer((), 0)
        try:
            result = answers.parse_sacct(text, delimiter)
        except ValueError as error:
            raise SchedulerUnavailableError(f"sacct printed no table of records: {error}") from error
        if result.unreadable:
            self._report_once("sacct.rows_unreadable", kind=str(result.unreadable), rows=result.unreadable)
        records = [(raw, _with_name(record)) for raw, record in result.records]
        # Elements that never started have one row together.
        for _, record in list(records):
            ids = map(JobId, waiting_elements(record.id))
            records += [(job, msgspec.structs.replace(record, id=job)) for job in ids]
        return replace(result, records=tuple(records))

    def ask_accounting(self, argv: Sequence[str]) -> str | None:
        """What a query of sacct prints; None, from now on, where there is no accounting.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """
        if not self._has_sacct:
            return None
        if self._settings.accounting == "auto" and shutil.which("sacct", path=self._query_environ.get("PATH")) is None:
            self._note_without_accounting("there is no sacct")
            return None
        answer = self._run(argv)
        if _DISABLED in answer.stderr and self._settings.accounting == "auto":
            self._note_without_accounting(_DISABLED)
            return None
        return printed(answer)

    def _note_without_accounting(self, why: str) -> None:
        log.info("sacct.disabled", why=why)
        self._has_sacct = False

    def _ask(self, argv: Sequence[str]) -> str:
        return printed(self._run(argv))

    def _run(self, argv: Sequence[str]) -> programs.CompletedProcess:
        self._requests.take()
        return run(argv, self._query_environ, self._settings.command_timeout)

    def _report_unreadable(self, answer: answers.QueueAnswer) -> None:
        """What this version of Slurm says that is not understood: once for each kind, for the log."""
        if answer.unreadable:
            # Jobs that are in no other row count as there.
            self._report_once("squeue.rows_unreadable", kind=str(answer.unreadable), rows=answer.unreadable)
        for row in answer.rows:
            if answers.state(row.word) is JobState.UNKNOWN:
                # Taken as not ended.
                self._report_once("squeue.state_unknown", kind=row.word, job=row.id, state=row.word)
            if row.exit_status is None or row.restarts is None or row.submitted is None:
                self._report_once("squeue.cell_unreadable", job=row.id)

    def _report_once(self, event: str, *, kind: str = "", **keys: object) -> None:
        """A warning for the log, once for each event and ``kind``."""
        if (event, kind) not in self._reported:
            self._reported.add((event, kind))
            log.warning(event, **keys)


def _with_name(record: JobRecord) -> JobRecord:
    """The name of who cancelled it, where sacct gives a number."""
    if not record.cancelled_by.isdigit():
        return record
    try:
        return msgspec.structs.replace(record, cancelled_by=pwd.getpwuid(int(record.cancelled_by)).pw_name)
    except (KeyError, OverflowError):
        return msgspec.structs.replace(record, cancelled_by=f"user {record.cancelled_by}")
