"""Grid Engine's commands as argument lists, and what they print as types. Pure; ``driver`` runs them.

Checked on Son of Grid Engine 8.1.9. Times are read under TZ=UTC and LC_ALL=C.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from xml.etree import ElementTree

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
)
from hpc_agent.schedulers.base import SubmitRequest

TITLE = "Grid Engine"
_SIGUSR2 = 12
_NODE_FAILURES = frozenset({19, 21, 22})
"""Codes of ``failed`` (man sge_status): the node or its daemon was gone when the job ended or should have begun."""
_ENFORCED = 37
"""Code of ``failed``: the master ended the job at its time limit."""

_STATES = (
    *(("d", JobState.COMPLETING), ("q", JobState.PENDING), ("s", JobState.SUSPENDED), ("S", JobState.SUSPENDED)),
    *(("r", JobState.RUNNING), ("t", JobState.RUNNING)),
)
"""Letter of a state → its meaning; the first that is found counts."""

WRAPPER = """\
#!/bin/bash
{directives}
# Grid Engine announces the end of a job by SIGUSR2 to all its processes. The script knows SIGTERM, with a moment to end
# in; that it was ended shows in the signal that this wrapper ends by.
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


def qstat(user: str, states: str = "prs") -> list[str]:
    """The jobs of a user; ``z`` of ``states`` are those that the master remembers after their end."""
    return ["qstat", "-xml", "-r", "-u", user, "-s", states]


def qacct(user: str, since: datetime) -> list[str]:
    """The records of all jobs of a user that started after a time."""
    return ["qacct", "-o", user, "-b", f"{since.astimezone(timezone.utc):%Y%m%d%H%M}", "-j"]


def parse_qsub(returncode: int, stdout: str, stderr: str) -> SubmitResult:
    """Classify the answer of ``qsub -terse``."""
    numbers = [line for line in stdout.split() if line.isdigit()]
    message = "; ".join(line.strip() for line in stderr.splitlines() if line.strip() not in ("", "Exiting."))[:1000]
    if returncode == 0:
        if len(numbers) == 1:
            return Accepted(JobId(numbers[0]))
        return OutcomeUnknown(f"qsub printed {len(numbers)} job ids: {stdout.strip()[:200]}", UnclearAnswer.NO_JOB_ID)
    if re.search(r"unable to (send|contact)|commlib|got \w+ error|time-?out", message, re.IGNORECASE):
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
    jobs = [{element.tag: element.text or "" for element in job} for job in root.iter("job_list")]
    return [_listed(job) for job in jobs]


def _listed(job: dict[str, str]) -> LiveJob:
    letters = job.get("state", "")
    found = next((state for letter, state in _STATES if letter in letters), JobState.UNKNOWN)
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
    if signal == _SIGUSR2:
        found = JobState.CANCELLED
    elif failed == _ENFORCED or (over and signal):
        found = JobState.TIMEOUT
    elif failed in _NODE_FAILURES:
        found = JobState.NODE_FAIL
    else:
        found = JobState.COMPLETED if (failed, code) == (0, 0) else JobState.FAILED
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


def jobs_are_gone(stderr: str, stdout: str, jobs: Iterable[JobId]) -> bool:
    """Whether qdel or qalter only complains of jobs that do not exist."""
    text = re.sub(
        r"denied: job .* does not exist|Following jobs do not exist:|job .* is already in deletion", "", stderr
    )
    return not set(re.findall(r"\S+", text)) - set(jobs) and "error" not in stdout
