"""Grid Engine's commands as argument lists, what they print as types, and the scheduler that runs them.

Checked on Son of Grid Engine 8.1.9. Times are read under TZ=UTC. Missing output never implies a job's state.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from xml.etree import ElementTree

from hpc_agent.clock import Clock
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import (
    Accepted,
    JobRecord,
    JobState,
    LimitReached,
    LiveJob,
    OutcomeUnknown,
    Refused,
    SubmitResult,
    UnclearAnswer,
    unconfirmed_record,
)
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.file_records import write_atomic
from hpc_agent.process import programs
from hpc_agent.schedulers.base import JobOrigin, SubmitRequest
from hpc_agent.schedulers.gridengine.settings import GridEngineSettings
from hpc_agent.schedulers.job_environment import scrubbed
from hpc_agent.schedulers.queries import printed, run
from hpc_agent.schedulers.records import newest, newest_of_name

TITLE = "Grid Engine"
_BEFORE = timedelta(hours=1)
NO_ANSWER = re.compile(r"unable to (send|contact)|commlib|got \w+ error|time-?out", re.IGNORECASE)
_SIGUSR2 = 12
_FAILED = {**dict.fromkeys((19, 21, 22), JobState.NODE_FAIL), 37: JobState.TIMEOUT}
"""Codes of ``failed`` (man sge_status): the node or its daemon was gone; the master enforced the time limit."""
_STATES = {"d": JobState.COMPLETING, "q": JobState.PENDING, "s": JobState.SUSPENDED, "S": JobState.SUSPENDED}
_STATES |= dict.fromkeys("rt", JobState.RUNNING)
"""Letter of a state → its meaning; the first that is found counts."""

WRAPPER = """\
#!/bin/bash
{directives}
# Grid Engine announces a job's end by SIGUSR2, the script knows SIGTERM. This wrapper's own signal tells of it.
trap '' USR1 USR2
{script} & child=$!
trap : USR1
trap 'ended=yes; kill -TERM "$child"; (sleep {grace}; kill -KILL "$child") >/dev/null 2>&1 & timer=$!' USR2
while kill -0 "$child" 2>/dev/null; do wait "$child"; done
wait "$child"
code=$?
[ -z "${{ended-}}" ] && exit "$code"
kill "$timer" 2>/dev/null
trap - USR2
kill -USR2 $$
"""


def qsub(request: SubmitRequest, wrapper: Path, extra: Sequence[str]) -> list[str]:
    return [
        # -V: jobs inherit the environment as on other schedulers; -w e: refused now if no node could ever run it;
        # -notify: a warning before SIGKILL; -r n: a restart cannot be counted from within.
        *("qsub", "-terse", "-V", "-w", "e", "-notify", "-r", "n", "-S", "/bin/bash", "-N", request.job_name),
        # A colon ends the name of a host.
        *("-wd", str(request.workdir), "-j", "y", "-o", f":{request.output}", *extra, str(wrapper)),
    ]


def parse_qsub(returncode: int, stdout: str, stderr: str) -> SubmitResult:
    """Classify the answer of ``qsub -terse``."""
    numbers = [line for line in stdout.split() if line.isdigit()]
    message = "; ".join(line.strip() for line in stderr.splitlines() if line.strip() not in ("", "Exiting."))[:1000]
    if returncode == 0:
        if len(numbers) == 1:
            return Accepted(JobId(numbers[0]))
        return OutcomeUnknown(f"qsub printed {len(numbers)} job ids: {stdout.strip()[:200]}", UnclearAnswer.NO_JOB_ID)
    if NO_ANSWER.search(message):
        return OutcomeUnknown(message)
    if returncode == 25 or re.search(r"jobs? (is|are) allowed per|maximum number of|try later", message, re.IGNORECASE):
        return LimitReached(message)
    if "Unable to run job" in message or "Unable to read" in message or "qsub:" in message:
        return Refused(message)
    return OutcomeUnknown(message or f"qsub ended with exit code {returncode}", UnclearAnswer.UNKNOWN_ERROR)


def parse_qstat(text: str) -> list[LiveJob]:
    """Jobs with Grid Engine's letters (``qw``, ``hqw``, ``r``, ``dr``, ``z``) as their raw state. One that runs is
    listed with its start in place of its submission.

    Raises:
        ValueError: this is not the XML that qstat prints.
    """
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - what the user's own scheduler prints
    except ElementTree.ParseError as error:
        raise ValueError(f"{error}: {text.strip()[:200]}") from error
    return [_listed({element.tag: element.text or "" for element in job}) for job in root.iter("job_list")]


def _listed(job: dict[str, str]) -> LiveJob:
    letters = job.get("state", "")
    found = next((state for letter, state in _STATES.items() if letter in letters), JobState.UNKNOWN)
    why = "its start failed" if "E" in letters else "held" if "h" in letters else "waiting for its turn"
    return LiveJob(
        id=JobId(job["JB_job_number"]),
        name=job.get("full_job_name") or job.get("JB_name", ""),
        state=found,
        raw_state=letters,
        reason=f"{why} (state {letters})" if found is JobState.PENDING else "",
        nodes=job.get("queue_name", "").partition("@")[2],
        submitted=_time(job.get("JB_submission_time") or job.get("JAT_start_time", "")),
        scheduler=TITLE,
    )


def parse_qacct(text: str) -> list[JobRecord]:
    """The records that ``qacct -j`` printed; other text is passed over."""
    blocks = re.split(r"^=+\s*$", text, flags=re.MULTILINE)
    fields = [dict(re.findall(r"^(\w+)[ \t]+(\S.*?)[ \t]*$", block, re.MULTILINE)) for block in blocks]
    return [_record(each) for each in fields if {"jobnumber", "failed", "exit_status"} <= set(each)]


def _record(fields: dict[str, str]) -> JobRecord:
    failed, code = int(fields["failed"].split()[0]), int(fields["exit_status"].split()[0])
    limit = re.search(r"h_rt=(\d+)", fields.get("category", ""))
    started, ended = _time(fields.get("start_time", "")), _time(fields.get("end_time", ""))
    signal = code - 128 if code > 128 else 0
    over = limit and started and ended and (ended - started).total_seconds() >= int(limit[1])
    found = _FAILED.get(failed) or (JobState.COMPLETED if (failed, code) == (0, 0) else JobState.FAILED)
    if signal and failed not in _FAILED:
        found = JobState.CANCELLED if signal == _SIGUSR2 else JobState.TIMEOUT if over else found
    return JobRecord(
        id=JobId(fields["jobnumber"]),
        state=found,
        raw_state=f"failed {fields['failed']}, exit status {code}",
        name=fields.get("jobname", ""),
        exit_code=0 if signal else code,
        signal=signal,
        submitted=_time(fields.get("qsub_time", "")),
        started=started,
        ended=ended,
        nodes=fields.get("hostname", ""),
        reason=fields["failed"].partition(":")[2].strip(),
        time_limit=int(limit[1]) if limit else None,
        scheduler=TITLE,
    )


def _time(text: str) -> datetime | None:
    for form in ("%Y-%m-%dT%H:%M:%S", "%a %b %d %H:%M:%S %Y"):
        with suppress(ValueError):
            return datetime.strptime(text, form).replace(tzinfo=timezone.utc)
    return None


class GridEngineScheduler:
    """The user's view of one Grid Engine, through the commands on PATH; see ``schedulers.base.Scheduler``."""

    name = "gridengine"

    def __init__(
        self, settings: GridEngineSettings, clock: Clock, cluster: str, grace: float, environ: Mapping[str, str]
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
        """The name that the settings give it, else the host of its master."""
        file = Path(self._environ.get("SGE_ROOT", ""), self._environ.get("SGE_CELL") or "default", "common/act_qmaster")
        try:
            return self._cluster or file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SchedulerUnavailableError(f"{file} cannot be read: set SGE_ROOT, or hpc.cluster: {error}") from error

    def about(self) -> JobOrigin:
        version = self._run(["qstat", "-help"]).stdout.partition("\n")[0]
        return JobOrigin(f"{TITLE} ({version}), cluster {self.cluster()}")

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
            text = WRAPPER.format(directives=directives, script=script, grace=self._grace)
            wrapper = request.script.with_name(f"{request.script.name}.qsub")
            write_atomic(wrapper, text.encode(), mode=0o700)
            answer = run(
                qsub(request, wrapper, self._settings.qsub_args), self._environ, self._settings.command_timeout
            )
        except (OSError, SchedulerUnavailableError) as error:
            return OutcomeUnknown(str(error))
        return parse_qsub(answer.returncode, answer.stdout, answer.stderr)

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
        """``z`` of ``states`` are jobs that the master remembers after their end."""
        answer = self._run(["qstat", "-xml", "-r", "-u", self._user, "-s", states])
        try:
            return parse_qstat(printed(answer))
        except ValueError as error:
            raise SchedulerUnavailableError(f"qstat printed no list of jobs: {error}") from error

    def _accounting(self, since: datetime) -> list[JobRecord]:
        """The records of all jobs of the user that started after a time."""
        begin = f"{(since - _BEFORE).astimezone(timezone.utc):%Y%m%d%H%M}"
        return parse_qacct(printed(self._run(["qacct", "-o", self._user, "-b", begin, "-j"])))

    def _change(self, argv: Sequence[str], jobs: Sequence[JobId]) -> None:
        answer = self._run([*argv, *jobs]) if jobs else None
        # It fails, too, where jobs do not exist any more.
        if answer and not answer.ok and NO_ANSWER.search(answer.stderr):
            raise SchedulerUnavailableError(f"{argv[0]} ended with exit code {answer.returncode}: {answer.last_words}")

    def _run(self, argv: Sequence[str]) -> programs.CompletedProcess:
        environ = {**self._environ, "TZ": "UTC", "LC_ALL": "C.UTF-8", "SGE_SINGLE_LINE": "1"}
        return run(argv, environ, self._settings.command_timeout)
