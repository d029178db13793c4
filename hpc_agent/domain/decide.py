"""What is due for one attempt: facts and time in, actions out. Pure; ``daemon`` gathers the facts and acts.

The table of design.md section 3. Absence of a fact is never taken for its opposite: what is uncertain waits, is looked
up again, or is protected by the claim (``queues.remove_task`` has exactly one winner).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from hpc_agent.domain.actions import (
    Action,
    Adopt,
    Cancel,
    Close,
    DropClaim,
    Finish,
    LookUp,
    PutBack,
    Refuse,
    Release,
    Say,
    Settle,
    Submit,
)
from hpc_agent.domain.ending import Cause
from hpc_agent.domain.job import JobRecord, JobState, LiveJob
from hpc_agent.domain.sight import Handed, Rules, Sight, Submitted
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.verdict import Fault, Verdict, explain, lost, never_came_to_life
from hpc_agent.domain.waiting import Wait, explain_wait

Due = tuple[Action, ...]

_WAITS = (JobState.PENDING, JobState.REQUEUED)
_RULES = Rules()


def decide(sight: Sight, now: datetime, rules: Rules = _RULES) -> Due:
    """The actions that are due, in order; empty when waiting is right."""
    if sight.record is not None and not sight.record.state.is_final:
        sight = replace(sight, record=None)  # a word that nobody knows is no verdict
    if sight.jobs:
        return _live(sight, rules)
    if sight.entry is not None:
        return _queued_without_job(sight, now, rules)
    return _gone(sight, now, rules)


# ---------------------------------------------------------------- a job is there


def _live(sight: Sight, rules: Rules) -> Due:
    first = sight.jobs[0]
    unclear = sight.submitted is not None and sight.submitted.state is not Handed.ACCEPTED
    adopt: Due = (Adopt(first.id),) if unclear else ()
    if sight.claimed is not None and sight.claimed.won:
        spare = [job for job in sight.jobs if job.id != sight.claimed.job]
        cancelled = tuple(Cancel(job.id, "the task is taken") for job in spare)
        return adopt + cancelled + (_claimed_job(sight, sight.owner, rules) if sight.owner else ())
    if sight.entry is not None:
        return adopt + _unclaimed_job(first, rules)
    if sight.claimed is None:
        return adopt + tuple(Cancel(job.id, "the task left the queue") for job in sight.jobs if job.state in _WAITS)
    return adopt


def _unclaimed_job(job: LiveJob, rules: Rules) -> Due:
    """Of a task that waits in its queue."""
    if job.state not in _WAITS:
        return ()
    wait = explain_wait(job)
    if wait.hopeless:
        return (Refuse(TaskStatus.FAILED, f"{wait.text}; enqueue the task again when that is mended"),)
    if wait.not_launched:
        if job.restarts >= rules.max_tries:
            return (Refuse(TaskStatus.FAILED, f"{wait.text}, {job.restarts} times; enqueue the task again"),)
        return (Release(job.id), _tried_again(wait, job))
    if job.reason in ("", "None"):
        return ()  # not looked at by the scheduler yet
    return (Say(wait.text, console=wait.text if wait.stuck else ""),)


def _tried_again(wait: Wait, job: LiveJob, *, ping: bool = False) -> Say:
    text = f"{wait.text}; it is tried again ({job.restarts})"
    return Say(text, ping, console=text)


def _claimed_job(sight: Sight, job: LiveJob, rules: Rules) -> Due:
    waits = job.state in _WAITS
    if sight.runs and waits:
        return _requeued_job(sight, job, rules)
    if not sight.taken_back:
        return ()
    if waits:
        return (Cancel(job.id, f"the task is {_word(sight)} and its requeued job has not started"),)
    # One that is still queued is about to be started; otherwise the executor stops by itself, and this one does not.
    stays = sight.status is not TaskStatus.QUEUED and not (sight.ended and sight.ended.posted)
    if stays and sight.final_for > rules.stop_grace:
        return (Cancel(job.id, f"the task is {_word(sight)} and its job has not ended", only_pending=False),)
    return ()


def _requeued_job(sight: Sight, job: LiveJob, rules: Rules) -> Due:
    """The task shows as running while its job waits for its next start. Once it is settled, its job is cancelled."""
    if sight.abort_requested:
        return (Settle(TaskStatus.STOPPED, "aborted by its user while it waited to go on"),)
    wait = explain_wait(job)
    if wait.hopeless:
        return (Settle(TaskStatus.FAILED, f"{wait.text}; enqueue the task again when that is mended"),)
    if wait.not_launched:
        if job.restarts >= rules.max_tries + (sight.claimed.start if sight.claimed else 0):
            return (Settle(TaskStatus.FAILED, f"{wait.text}, {job.restarts} times; enqueue the task again"),)
        return (Release(job.id), _tried_again(wait, job, ping=True))
    line = wait.text if wait.stuck else f"{job.title} was requeued (start {job.restarts + 1}) and waits"
    return (Say(f"requeued, waiting: {wait.text}", ping=True, console=line),)


def _word(sight: Sight) -> str:
    if sight.status is TaskStatus.IN_PROGRESS:
        return "run by another agent"
    return sight.status.value if sight.status else "gone"


# ---------------------------------------------------------------- no job, in the queue


def _queued_without_job(sight: Sight, now: datetime, rules: Rules) -> Due:
    if sight.ended is not None or (sight.claimed is not None and sight.claimed.won):
        return ()  # the entry was seen before a job took it and ended: the next look is true
    submitted = sight.submitted
    if submitted is None:
        return (Submit(),)
    age = abs((now - submitted.at).total_seconds())
    if submitted.state is not Handed.ACCEPTED:
        return (LookUp(submitted.tries + 1, give_up=age > rules.look_up_for),)
    record = sight.record
    if record is None:
        if sight.gone_for <= rules.lost_after:
            return ()
        words = f"{submitted.tries} jobs vanished without a trace before they took the task"
        return _again(sight, submitted, words, rules)
    if _lives_elsewhere(record) or (_may_come_back(record) and not sight.steady):
        return ()
    verdict = explain(record, sight.clues)
    if verdict.fault is Fault.PERSON:
        reason = f"{verdict.reason} while it waited; enqueue the task again to go on"
        return _after_claim(sight, Refuse(verdict.status, reason))
    words = f"{submitted.tries} jobs ended without taking the task; the last: {verdict.reason}"
    return _again(sight, submitted, words, rules)


def _again(sight: Sight, submitted: Submitted, words: str, rules: Rules) -> Due:
    if submitted.tries >= rules.max_tries:
        return _after_claim(sight, Refuse(TaskStatus.FAILED, words))
    return _after_claim(sight, Submit(submitted.tries + 1))


def _after_claim(sight: Sight, action: Action) -> Due:
    return (DropClaim(), action) if sight.claimed else (action,)


# ---------------------------------------------------------------- no job, not in the queue


def _gone(sight: Sight, now: datetime, rules: Rules) -> Due:
    if sight.claimed is None:
        return _never_claimed(sight, now, rules)
    if sight.ended is not None and sight.ended.posted:
        return (Close("its last word is posted"),)
    if sight.ended is not None and sight.ended.again:
        return (PutBack(sight.ended.reason),)
    if sight.status is TaskStatus.QUEUED:
        return _taken_off(sight, rules)
    if sight.status is TaskStatus.UNKNOWN:
        return ()
    if not sight.runs:
        final = sight.status is not None and sight.status.is_final
        return (Close(f"the task is {_word(sight)}", ship=final),)
    if sight.claimed.job is None and sight.ended is None:
        # Run by hand outside the scheduler: that agent reports for itself, the server's watchdog covers its death.
        return ()
    return _verdict(sight, rules)


def _taken_off(sight: Sight, rules: Rules) -> Due:
    """Off the queue and never started: by a refusal that is not through, or by somebody who died there."""
    assert sight.claimed is not None
    if sight.claimed.begun:
        return (Close("its user enqueued it anew"),)
    if sight.ended is not None and sight.claimed.job is None:
        return (Finish(),)
    if sight.gone_for > rules.put_back_after:
        return (PutBack("taken off the queue by a job that died before it started"),)
    return ()


def _never_claimed(sight: Sight, now: datetime, rules: Rules) -> Due:
    submitted = sight.submitted
    unclear = submitted is not None and submitted.state is not Handed.ACCEPTED
    if unclear and submitted and abs((now - submitted.at).total_seconds()) <= rules.look_up_for:
        return ()  # a job may still turn up under this name, and must then be cancelled
    return (Close("the task left the queue"),)


def _verdict(sight: Sight, rules: Rules) -> Due:
    """The claiming job is gone, and the server shows its task as running."""
    assert sight.claimed is not None
    ended, record = sight.ended, sight.record
    if ended is not None and ended.cause is None:
        return (Finish(),)
    if record is None:
        if sight.gone_for <= rules.lost_after:
            return ()
        verdict = _by_report(sight) or lost(sight.claimed.job or "?", sight.gone_for)
        return _conclude(sight, verdict, rules)
    if _lives_elsewhere(record) or (not sight.steady and (_may_come_back(record) or ended)):
        return ()
    if sight.starts_seen > sight.claimed.start and record.state is not JobState.CANCELLED:
        verdict = never_came_to_life(record)
    elif record.state in (JobState.FAILED, JobState.COMPLETED):
        verdict = _by_report(sight) or explain(record, sight.clues)
    else:
        verdict = explain(record, sight.clues)
    return _conclude(sight, verdict, rules)


def _by_report(sight: Sight) -> Verdict | None:
    """What the executor found out when its job was told to end, where the record does not say more."""
    if sight.ended is None:
        return None
    faults = {Cause.TIME_LIMIT: Fault.TIME, Cause.PREEMPTED: Fault.SITE, Cause.NODE_FAILED: Fault.SITE}
    fault = faults.get(sight.ended.cause or Cause.UNKNOWN, Fault.PERSON)
    status = TaskStatus.FAILED if fault is Fault.TIME else TaskStatus.STOPPED
    return Verdict(status, sight.ended.reason, fault)


def _conclude(sight: Sight, verdict: Verdict, rules: Rules) -> Due:
    """A final status, or another attempt where that is right and policy allows it."""
    assert sight.claimed is not None
    if sight.abort_requested:
        return (Settle(TaskStatus.STOPPED, f"aborted by its user; {verdict.reason}"),)
    harmless = not sight.claimed.begun and verdict.fault is not Fault.PERSON
    again = harmless or verdict.fault is Fault.SITE
    again = again or (verdict.fault is Fault.TIME and rules.requeue_on_time_limit)
    if not again:
        return (Settle(verdict.status, verdict.reason),)
    if sight.restarts >= rules.max_restarts:
        times = f"; it was restarted {sight.restarts} times before (max_restarts)" if sight.restarts else ""
        return (Settle(verdict.status, f"{verdict.reason}{times}"),)
    reason = verdict.reason.removesuffix("; enqueue the task again")
    return (PutBack(reason, restart=True, node=_to_blame(sight, verdict, rules)),)


def _to_blame(sight: Sight, verdict: Verdict, rules: Rules) -> str:
    """The node, if it ended a job soon after its start; nothing of a job on several, for nobody knows which it was."""
    record = sight.record
    if record is None or verdict.fault is not Fault.SITE or record.state is JobState.PREEMPTED:
        return ""
    ran = (record.ended - record.started).total_seconds() if record.started and record.ended else 0.0
    return record.nodes if ran <= rules.quick_death and not set(record.nodes) & set(",[") else ""


def _may_come_back(record: JobRecord) -> bool:
    return record.state.may_be_requeued


def _lives_elsewhere(record: JobRecord) -> bool:
    """In a federation another cluster has the job: its end here says nothing."""
    return record.state is JobState.REVOKED
