"""Why a claiming job ended: who is heard first."""

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

_FAULTS = {
    TerminationCause.TIME_LIMIT: FailureClass.TIME,
    TerminationCause.PREEMPTED: FailureClass.SITE,
    TerminationCause.NODE_FAILED: FailureClass.SITE,
}


def classify_missing_job(sight: AttemptSnapshot) -> JobOutcome:
    """The verdict on a run whose job is gone for certain, and whose executor named no final status."""
    return next(verdict for look in _IN_THIS_ORDER if (verdict := look(sight)))


def _cancelled(sight: AttemptSnapshot) -> JobOutcome | None:
    """A person wanted it so, whatever happened to the job before."""
    cancelled = sight.record is not None and sight.record.state is JobState.CANCELLED
    return classify_exit(sight.record) if cancelled and sight.record else None


def _of_a_later_start(sight: AttemptSnapshot) -> JobOutcome | None:
    """It was started again, and no agent of ours took the task up in that start."""
    start = sight.claimed.start if sight.claimed else 0
    requeued = sight.ended is not None and sight.ended.cause is TerminationCause.REQUEUED
    return agent_never_started(sight.record) if sight.record and (requeued or sight.starts_seen > start) else None


def _named_by_the_record(sight: AttemptSnapshot) -> JobOutcome | None:
    return named(sight.record, sight.clues) if sight.record else None


def _told_to_the_executor(sight: AttemptSnapshot) -> JobOutcome | None:
    """What it found out when its job was told to end."""
    ended = sight.ended
    if ended is None or ended.cause in (None, TerminationCause.REQUEUED):
        return None
    fault = _FAULTS.get(ended.cause or TerminationCause.UNKNOWN, FailureClass.PERSON)
    return JobOutcome(TaskStatus.FAILED if fault is FailureClass.TIME else TaskStatus.STOPPED, ended.reason, fault)


def _given_up(sight: AttemptSnapshot) -> JobOutcome | None:
    """Its executor took the task for taken back, but it is not: nothing of it runs any more."""
    if sight.ended is None or not sight.ended.gave_up:
        return None
    text = f"its agent gave the task up: {sight.ended.reason}; enqueue the task again"
    return JobOutcome(TaskStatus.FAILED, text, FailureClass.SITE)


def _left_behind(sight: AttemptSnapshot) -> JobOutcome | None:
    """An agent had the task in this start: that an earlier one was not launched says nothing of it."""
    return left_behind(sight.record, replace(sight.clues, not_launched=False)) if sight.record else None


def _nothing_is_known(sight: AttemptSnapshot) -> JobOutcome:
    return lost((sight.claimed.job if sight.claimed else None) or "?", sight.missing_seconds)


_IN_THIS_ORDER = (
    _cancelled,
    _of_a_later_start,
    _named_by_the_record,
    _told_to_the_executor,
    _given_up,
    _left_behind,
    _nothing_is_known,
)
