"""Outcome of a job: a status, and a sentence that its user can act on."""

from __future__ import annotations

from enum import Enum

import msgspec
from msgspec.structs import replace

from hpc_agent.domain import duration
from hpc_agent.domain.job import ExitEvidence, JobRecord, JobState
from hpc_agent.domain.snapshot import AttemptSnapshot
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.termination_cause import TerminationCause


class FailureClass(Enum):
    """Class of causes of an end: it decides whether the task is tried again."""

    USER_CODE = "user code"
    TIME_LIMIT = "time limit"
    INFRASTRUCTURE = "infrastructure"
    """The same task may well succeed elsewhere, or later."""
    CANCELLED = "cancelled"
    """By a user."""
    UNKNOWN = "unknown"
    """No source has seen the end: the run may go on, and a second one at the same time is worse than none."""


class JobOutcome(msgspec.Struct, frozen=True):
    status: TaskStatus
    reason: str
    failure_class: FailureClass


_NO_EVIDENCE = ExitEvidence()


class Advice(msgspec.Struct, frozen=True):
    """Advice to a user, in terms of how the job was submitted."""

    time: str = "ask for more with the user property time_limit"
    memory: str = "ask for more with the user property memory_gb"
    again: str = "enqueue the task again"
    output: str = "its output file in the run directory could not be opened; is hpc.runs_dir there?"


TASK_ADVICE = Advice()
SCRIPT_ADVICE = Advice(
    time="ask for more with --time",
    memory="ask for more with --mem",
    again="submit it again",
    output="its output file could not be opened",
)


def classify_exit(record: JobRecord, evidence: ExitEvidence = _NO_EVIDENCE, advice: Advice = TASK_ADVICE) -> JobOutcome:
    """The verdict on a job that left no report of its own: the cause that its record names, else what it left behind,
    which may be of an earlier start (``job.out`` is appended to)."""
    return named(record, evidence, advice) or left_behind(record, evidence, advice)


def named(record: JobRecord, evidence: ExitEvidence = _NO_EVIDENCE, advice: Advice = TASK_ADVICE) -> JobOutcome | None:
    """The cause that the scheduler's own word for the end names. FAILED and COMPLETED name none."""
    state, job = record.state, record.title
    after, on = record.duration_text, f" on {record.nodes}" if record.nodes else ""
    match state:
        case JobState.CANCELLED:
            by = f" by {record.cancelled_by}" if record.cancelled_by else ""
            at = f" at {record.ended:%Y-%m-%d %H:%M:%S} UTC" if record.ended else ""
            return JobOutcome(TaskStatus.STOPPED, f"{job} was cancelled{by}{at}{after}{on}", FailureClass.CANCELLED)
        case JobState.NODE_FAIL:
            text = f"node {record.nodes or 'of the job'} failed{after} ({job}); {advice.again}"
            return JobOutcome(TaskStatus.FAILED, text, FailureClass.INFRASTRUCTURE)
        case JobState.PREEMPTED:
            if record.pilot:
                text = f"{job} ended with its pilot ({record.pilot}); {advice.again}"
            else:
                text = f"{job} was preempted{after}{on} and not requeued; {advice.again}"
            return JobOutcome(TaskStatus.STOPPED, text, FailureClass.INFRASTRUCTURE)
        case JobState.BOOT_FAIL:
            return _not_started(record, "a node failed to boot", advice)
        case JobState.TIMEOUT:
            ran = (record.ended - record.started).total_seconds() if record.ended and record.started else None
            text = f"{time_limit(record.time_limit, ran, advice=advice)} ({job}{on})"
            return JobOutcome(TaskStatus.FAILED, text, FailureClass.TIME_LIMIT)
        case JobState.OUT_OF_MEMORY:
            return _out_of_memory(record, evidence, advice)
        case JobState.DEADLINE:
            return JobOutcome(TaskStatus.FAILED, f"the deadline of {job} passed{after}", FailureClass.USER_CODE)
        case _:
            return None


def left_behind(record: JobRecord, evidence: ExitEvidence, advice: Advice = TASK_ADVICE) -> JobOutcome:
    """Of a job whose record names no cause."""
    if evidence.out_of_memory:
        return _out_of_memory(record, evidence, advice)
    if evidence.not_launched:
        return _not_started(record, evidence.last_words, advice)
    if record.output_not_opened:
        return _not_started(record, advice.output, advice)
    if record.state is JobState.REVOKED:
        text = f"{record.title} was given to another cluster of the federation, and how it ended is not known here"
        return JobOutcome(TaskStatus.FAILED, f"{text}; {advice.again}", FailureClass.USER_CODE)
    last_line = f"; its last line: {evidence.last_words}" if evidence.last_words else ""
    on = f" on {record.nodes}" if record.nodes else ""
    ended = f"{record.title} {record.raw_state} ({record.exit_text}){record.duration_text}{on}"
    text = f"{ended} and its agent left no report{last_line}"
    return JobOutcome(TaskStatus.FAILED, f"{text}; see job.out in its run directory", FailureClass.USER_CODE)


def _not_started(record: JobRecord, why: str, advice: Advice) -> JobOutcome:
    on = f" on {record.nodes}" if record.nodes else ""
    return JobOutcome(
        TaskStatus.FAILED,
        f"{record.title} could not be started{on}: {why}; {advice.again}",
        FailureClass.INFRASTRUCTURE,
    )


def _out_of_memory(record: JobRecord, evidence: ExitEvidence, advice: Advice) -> JobOutcome:
    on = f" on {record.nodes}" if record.nodes else ""
    message = out_of_memory(evidence.used_mb, evidence.limit_mb, advice)
    return JobOutcome(TaskStatus.FAILED, f"{message} ({record.title}{on})", FailureClass.USER_CODE)


_EARLY_S = 60.0
"""Slurm looks at time limits twice a minute, and never ends a job before its own."""


def time_limit(
    limit: float | None, ran: float | None, *, warned_before: bool = False, advice: Advice = TASK_ADVICE
) -> str:
    """Seconds each; None where they are not known. ``warned_before``: by us, some time before it."""
    if limit and ran is not None and ran < limit - _EARLY_S and not warned_before:
        # Seen on Slurm 22.05: the reason is TimeLimit, when it is the reservation that is over.
        return (
            f"the job's time was up after {duration.format_duration(ran)}, "
            f"before its time limit of {duration.format_duration(limit)}: "
            "its reservation, or another limit of the site, has ended"
        )
    which = f"time limit {duration.format_duration(limit)}" if limit else "the time limit was"
    when = f" after {duration.format_duration(ran)}" if ran is not None else ""
    return f"{which} reached{when}; {advice.time}"


def out_of_memory(used_mb: float | None, limit_mb: float | None, advice: Advice = TASK_ADVICE) -> str:
    """Also for a process that the kernel ended in a job that went on."""
    if used_mb and limit_mb:
        figures = f": used {used_mb / 1024:.3g} of {limit_mb / 1024:.3g} GiB"
    elif limit_mb:
        figures = f": it had {limit_mb / 1024:.3g} GiB"
    else:
        figures = ""
    return f"out of memory{figures}; {advice.memory}"


def agent_never_started(record: JobRecord) -> JobOutcome:
    """Outcome of a job that was started again and ended before its agent started.

    Seen on Slurm 22.05 with a node that had just come back ("Job credential revoked")."""
    on = f" on {record.nodes}" if record.nodes else ""
    text = f"{record.title} was started again{on} and ended {record.raw_state} before the agent started"
    return JobOutcome(TaskStatus.FAILED, f"{text}; enqueue the task again", FailureClass.INFRASTRUCTURE)


def restarted_before(restarts: int) -> str:
    """What is added to a reason where the task would go on, but has done so too often; nothing for no restart."""
    times = {1: "once", 2: "twice"}.get(restarts, f"{restarts} times")
    return f"; it was restarted {times} before (max_restarts)" if restarts else ""


def lost(job: str, seconds: float, advice: Advice = TASK_ADVICE) -> JobOutcome:
    """For a job that neither squeue nor accounting nor a report mentions any more."""
    minutes = round(max(seconds, 60) / 60)
    text = (
        f"job {job} is lost: for {minutes} minute{'' if minutes == 1 else 's'} neither the scheduler nor the job "
        f"itself said how it ended; {advice.again}"
    )
    return JobOutcome(TaskStatus.FAILED, text, FailureClass.UNKNOWN)


def in_one_line(text: str, limit: int = 500) -> str:
    """``text`` as a status reason: one line, not longer than a page shows. The console has the whole."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


_FAILURE_CLASSES = {
    TerminationCause.TIME_LIMIT: FailureClass.TIME_LIMIT,
    TerminationCause.PREEMPTED: FailureClass.INFRASTRUCTURE,
    TerminationCause.NODE_FAILED: FailureClass.INFRASTRUCTURE,
    TerminationCause.NOT_LAUNCHED: FailureClass.INFRASTRUCTURE,
}
_FAILURES = frozenset({TerminationCause.TIME_LIMIT, TerminationCause.NOT_LAUNCHED})
"""Causes for which a task that is not started again has failed, and was not stopped."""


def classify_missing_job(snapshot: AttemptSnapshot) -> JobOutcome:
    """The outcome of a run whose job is certainly gone, and whose executor reported no final status."""
    return next(outcome for look in _IN_THIS_ORDER if (outcome := look(snapshot)))


def _cancelled(snapshot: AttemptSnapshot) -> JobOutcome | None:
    """A user wanted it so, whatever happened to the job before."""
    cancelled = snapshot.record is not None and snapshot.record.state is JobState.CANCELLED
    return classify_exit(snapshot.record) if cancelled and snapshot.record else None


def _of_a_later_start(snapshot: AttemptSnapshot) -> JobOutcome | None:
    """It was started again, and no agent of ours took the task up in that start."""
    start = snapshot.claimed.restart_count if snapshot.claimed else 0
    requeued = snapshot.ended is not None and snapshot.ended.cause is TerminationCause.REQUEUED
    return (
        agent_never_started(snapshot.record)
        if snapshot.record and (requeued or snapshot.restarts_seen > start)
        else None
    )


def _named_by_the_record(snapshot: AttemptSnapshot) -> JobOutcome | None:
    return named(snapshot.record, snapshot.evidence) if snapshot.record else None


def _from_the_executors_report(snapshot: AttemptSnapshot) -> JobOutcome | None:
    """What it found out of an end that is not the task's own."""
    ended = snapshot.ended
    if ended is None or ended.cause in (None, TerminationCause.REQUEUED):
        return None
    fault = _FAILURE_CLASSES.get(ended.cause or TerminationCause.UNKNOWN, FailureClass.CANCELLED)
    return JobOutcome(TaskStatus.FAILED if ended.cause in _FAILURES else TaskStatus.STOPPED, ended.reason, fault)


def _given_up(snapshot: AttemptSnapshot) -> JobOutcome | None:
    """Its executor took the task for taken back, but it is not: nothing of it runs any more."""
    if snapshot.ended is None or not snapshot.ended.gave_up:
        return None
    text = f"its agent gave the task up: {snapshot.ended.reason}; enqueue the task again"
    return JobOutcome(TaskStatus.FAILED, text, FailureClass.INFRASTRUCTURE)


def _left_behind(snapshot: AttemptSnapshot) -> JobOutcome | None:
    """An agent had the task in this start: that an earlier one was not launched says nothing of it."""
    return left_behind(snapshot.record, replace(snapshot.evidence, not_launched=False)) if snapshot.record else None


def _nothing_is_known(snapshot: AttemptSnapshot) -> JobOutcome:
    return lost((snapshot.claimed.job if snapshot.claimed else None) or "?", snapshot.missing_seconds)


_IN_THIS_ORDER = (
    _cancelled,
    _of_a_later_start,
    _named_by_the_record,
    _from_the_executors_report,
    _given_up,
    _left_behind,
    _nothing_is_known,
)
