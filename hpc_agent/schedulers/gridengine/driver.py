"""Runs Grid Engine's commands. ``commands`` reads what they print; missing output never implies a job's state."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from hpc_agent import process
from hpc_agent.clock import Clock
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import (
    JobRecord,
    JobState,
    LiveJob,
    OutcomeUnknown,
    Refused,
    SubmitResult,
    unconfirmed_record,
)
from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.file_records import write_atomic
from hpc_agent.schedulers.base import JobOrigin, SubmitRequest
from hpc_agent.schedulers.gridengine import commands
from hpc_agent.schedulers.gridengine.settings import GridEngineSettings
from hpc_agent.schedulers.job_environment import scrubbed
from hpc_agent.schedulers.records import newest, newest_of_name

_BEFORE = timedelta(hours=1)


class GridEngineScheduler:
    """The user's view of one Grid Engine, through the commands on PATH; see ``schedulers.base.Scheduler``."""

    name = "gridengine"

    def __init__(
        self, settings: GridEngineSettings, clock: Clock, *, cluster: str, grace: float, environ: Mapping[str, str]
    ) -> None:
        """``grace``: seconds from SIGTERM to SIGKILL of a cancelled job."""
        self._settings = settings
        self._clock = clock
        self._cluster = cluster
        self._grace = grace
        # qsub -V cannot pass functions on.
        self._environ = {k: v for k, v in scrubbed(environ).items() if not k.startswith("BASH_FUNC_")}
        self._user = pwd.getpwuid(os.getuid()).pw_name
        self._ended_at: dict[JobId, float] = {}
        """When a job was first seen ended without a record."""

    def cluster(self) -> str:
        """The name that the site gave it, else the host of its master."""
        common = Path(self._environ.get("SGE_ROOT", ""), self._environ.get("SGE_CELL") or "default", "common")
        for name in ("cluster_name", "act_qmaster"):
            if not self._cluster and (common / name).is_file():
                self._cluster = (common / name).read_text(encoding="utf-8").strip()
        if not self._cluster:
            raise SchedulerUnavailableError(f"{common} names no cluster: set SGE_ROOT, or hpc.cluster in clearml.conf")
        return self._cluster

    def about(self) -> JobOrigin:
        version = self._run(["qstat", "-help"]).stdout.partition("\n")[0]
        return JobOrigin(f"{commands.TITLE} ({version}), cluster {self.cluster()}")

    def submit(self, request: SubmitRequest) -> SubmitResult:
        if set(str(request.output)) & set("$,"):
            return Refused(f"Grid Engine cannot write to {request.output}: it reads $ and , in a path as its own")
        try:
            lines = request.script.read_text(encoding="utf-8").splitlines()
            if not lines or not lines[0].startswith("#!"):
                return Refused(f"{request.script} does not start with #! and the path of an interpreter")
            request.script.chmod(0o700)
            directives = "\n".join(line for line in lines if line.startswith("#$"))
            script = shlex.quote(str(request.script))
            text = commands.WRAPPER.format(directives=directives, script=script, grace=self._grace)
            wrapper = request.script.with_name(f"{request.script.name}.qsub")
            write_atomic(wrapper, text.encode(), mode=0o700)
            answer = self._run(commands.qsub(request, wrapper, self._settings.qsub_args), cwd=request.workdir)
        except (OSError, SchedulerUnavailableError) as error:
            return OutcomeUnknown(str(error))
        return commands.parse_qsub(answer.returncode, answer.stdout, answer.stderr)

    def live_jobs(self) -> Sequence[LiveJob]:
        return self._listed()

    def room(self) -> Capacity:
        return Capacity()

    def find(self, job_name: str, since: datetime) -> JobId | None:
        return newest_of_name([*self._listed("prsz"), *self._accounting(since)], job_name, since)

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        """From accounting. A job that the master remembers as ended, and that gets no record, was deleted before it
        started."""
        if not jobs:
            return {}
        ended = [
            JobRecord(job.id, JobState.CANCELLED, "deleted", job.name, submitted=job.submitted)
            for job in self._listed("z")
        ]
        remembered = newest([(record.id, record) for record in ended], jobs)
        found = newest([(record.id, record) for record in self._accounting(min(jobs.values()))], jobs)
        for job in remembered.keys() - found.keys():
            waited = self._clock.monotonic() - self._ended_at.setdefault(job, self._clock.monotonic())
            late = waited > self._settings.accounting_delay
            found[job] = remembered[job] if late else unconfirmed_record(job)
        return found

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        if only_pending:
            # One that is held cannot start between the look and its deletion; a hold changes nothing for one that runs.
            self._change(["qalter", "-h", "u"], jobs)
            waiting = [job.id for job in self._listed() if job.id in jobs and job.state is JobState.PENDING]
            self._change(["qrls", "-h", "u"], [job for job in jobs if job not in waiting])
            jobs = waiting
        self._change(["qdel"], jobs)

    def release(self, jobs: Sequence[JobId]) -> None:
        self._change(["qmod", "-cj"], jobs)

    def _listed(self, states: str = "prs") -> list[LiveJob]:
        answer = self._run(commands.qstat(self._user, states))
        try:
            return commands.parse_qstat(answer.stdout)
        except ValueError as error:
            raise SchedulerUnavailableError(f"qstat printed no list of jobs: {answer.last_words or error}") from error

    def _accounting(self, since: datetime) -> list[JobRecord]:
        answer = self._run(commands.qacct(self._user, since - _BEFORE))
        if not answer.ok:
            raise SchedulerUnavailableError(f"qacct ended with exit code {answer.returncode}: {answer.last_words}")
        return commands.parse_qacct(answer.stdout)

    def _change(self, argv: Sequence[str], jobs: Sequence[JobId]) -> None:
        if not jobs:
            return
        answer = self._run([*argv, *jobs])
        if not answer.ok and not commands.jobs_are_gone(answer.stderr, answer.stdout, jobs):
            raise SchedulerUnavailableError(f"{argv[0]} ended with exit code {answer.returncode}: {answer.last_words}")

    def _run(self, argv: Sequence[str], cwd: Path | None = None) -> process.CompletedProcess:
        environ = {**self._environ, "TZ": "UTC", "LC_ALL": "C.UTF-8", "SGE_SINGLE_LINE": "1"}
        if argv[0] == "qsub":
            environ = self._environ
        try:
            return process.run(argv, timeout=self._settings.command_timeout, env=environ, cwd=cwd)
        except ProcessError as error:
            raise SchedulerUnavailableError(f"Grid Engine gave no answer: {error}") from error
