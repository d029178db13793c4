"""Outcome of a run whose job is gone: which evidence counts first."""

from __future__ import annotations

from dataclasses import replace

from hpc_agent.domain.job import JobState
from hpc_agent.domain.outcome import (
    FailureClass,
    JobOutcome,
    agent_never_started,
    classify_exit,
    left_behind,
    lost,
    named,
)
from hpc_agent.domain.snapshot import AttemptSnapshot
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.termination import TerminationCause

_FAILURE_CLASSES = {
    TerminationCause.TIME_LIMIT: FailureClass.TIME_LIMIT,
    TerminationCause.PREEMPTED: FailureClass.INFRASTRUCTURE,
    TerminationCause.NODE_FAILED: FailureClass.INFRASTRUCTURE,
}


def classify_missing_job(snapshot: AttemptSnapshot) -> JobOutcome:
    """The outcome of a run whose job is certainly gone, and whose executor reported no final status."""
    return next(outcome for look in _IN_THIS_ORDER if (outcome := look(snapshot)))


def _cancelled(snapshot: AttemptSnapshot) -> JobOutcome | None:
    """A person wanted it so, whatever happened to the job before."""
    cancelled = snapshot.record is not None and snapshot.record.state is JobState.CANCELLED
    return classify_exit(snapshot.record) if cancelled and snapshot.record else None


def _of_a_later_start(snapshot: AttemptSnapshot) -> JobOutcome | None:
    """It was started again, and no agent of ours took the task up in that start."""
    start = snapshot.claimed.start if snapshot.claimed else 0
    requeued = snapshot.ended is not None and snapshot.ended.cause is TerminationCause.REQUEUED
    return (
        agent_never_started(snapshot.record)
        if snapshot.record and (requeued or snapshot.restarts_seen > start)
        else None
    )


def _named_by_the_record(snapshot: AttemptSnapshot) -> JobOutcome | None:
    return named(snapshot.record, snapshot.evidence) if snapshot.record else None


def _told_to_the_executor(snapshot: AttemptSnapshot) -> JobOutcome | None:
    """What it found out when its job was told to end."""
    ended = snapshot.ended
    if ended is None or ended.cause in (None, TerminationCause.REQUEUED):
        return None
    fault = _FAILURE_CLASSES.get(ended.cause or TerminationCause.UNKNOWN, FailureClass.CANCELLED)
    return JobOutcome(
        TaskStatus.FAILED if fault is FailureClass.TIME_LIMIT else TaskStatus.STOPPED, ended.reason, fault
    )


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
    _told_to_the_executor,
    _given_up,
    _left_behind,
    _nothing_is_known,
)
