"""What is due for one attempt: facts and time in, actions out. Pure; ``daemon`` gathers the facts and acts.

The decision table: ``domain.phase`` names its rows, ``_DUE`` at the end of this module says what each has due. Absence
of a fact is never taken for its opposite: what is uncertain waits, is looked up again, or is protected by the claim
(``queues.remove_task`` has exactly one winner).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from hpc_agent.domain.job import Doubt, JobRecord, JobState, LiveJob
from hpc_agent.domain.judge import judge
from hpc_agent.domain.phase import WAITING_STATES, Phase, phase_of
from hpc_agent.domain.sight import Handed, Hold, Rules, Sight, Submitted
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.verdict import Fault, Verdict, explain, restarted_before
from hpc_agent.domain.waiting import Wait, explain_wait

Due = tuple[Action, ...]

_RULES = Rules()


def decide(sight: Sight, now: datetime, rules: Rules = _RULES) -> Due:
    """The actions that are due, in order; empty when waiting is right."""
    if sight.is_in_doubt and sight.doubted_for > rules.doubted_at_most:
        # Waited for long enough: accounting may show RUNNING forever of a job that the controller lost.
        sight = replace(sight, record=None)
    return (*_adopted(sight), *_DUE[phase_of(sight)](sight, now, rules))


def _nothing(_sight: Sight, _now: datetime, _rules: Rules) -> Due:
    return ()


# ---------------------------------------------------------------- a job is there


def _adopted(sight: Sight) -> Due:
    """A job under the attempt's name is the one of its unclear submission."""
    unclear = sight.submitted is not None and sight.submitted.state is not Handed.ACCEPTED
    return (Adopt(sight.jobs[0].id),) if sight.jobs and unclear else ()


def _without_duplicates(sight: Sight) -> Due:
    """Of a claimed task every job but the claiming one."""
    assert sight.claimed is not None
    return tuple(Cancel(job.id, "the task is taken") for job in sight.jobs if job.id != sight.claimed.job)


def _duplicate(sight: Sight, _now: datetime, _rules: Rules) -> Due:
    return _without_duplicates(sight)


def _dequeued(sight: Sight, _now: datetime, _rules: Rules) -> Due:
    return tuple(
        Cancel(job.id, "the task left the queue")
        for job in sight.jobs
        if job.state in WAITING_STATES and _is_spare(sight, job)
    )


def _is_spare(sight: Sight, job: LiveJob) -> bool:
    """Of a task that left its queue and that nobody is known to have won: whether its waiting job is of no use.

    A job of which an agent wrote down its intent before may have taken the task off: it tells when it starts.
    """
    if sight.claimed is None or sight.claimed.job != job.id:
        return True
    wait = explain_wait(job)
    ours = sight.status is TaskStatus.IN_PROGRESS and sight.hold is Hold.OURS
    may_tell = ours or sight.status in (TaskStatus.QUEUED, TaskStatus.UNKNOWN)
    return not may_tell or wait.hopeless or wait.not_launched


def _pending(sight: Sight, _now: datetime, rules: Rules) -> Due:
    job = sight.jobs[0]
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


def _running(sight: Sight, _now: datetime, _rules: Rules) -> Due:
    return _without_duplicates(sight)


def _ended_requeued(sight: Sight, _now: datetime, _rules: Rules) -> Due:
    """That the scheduler would start the job again (RequeueExit) is of no use to a task whose run is over."""
    assert sight.ended is not None
    finish: Due = (Finish(),) if sight.ended.names_status and not sight.ended.posted else ()
    return (*_without_duplicates(sight), *finish, Cancel(_owner(sight).id, "its task has ended"))


def _withdrawn(sight: Sight, _now: datetime, rules: Rules) -> Due:
    return (*_without_duplicates(sight), *_withdrawn_job(sight, _owner(sight), rules))


def _withdrawn_job(sight: Sight, job: LiveJob, rules: Rules) -> Due:
    if job.state in WAITING_STATES:
        return (Cancel(job.id, f"the task is {_word(sight)} and its requeued job has not started"),)
    # One that is still queued is about to be started; a script that completed its own task may go on. Otherwise the
    # executor stops by itself, and this one does not.
    goes_on = sight.status in (TaskStatus.QUEUED, TaskStatus.COMPLETED)
    stays = not goes_on and not (sight.ended and sight.ended.posted)
    if stays and sight.final_for > rules.stop_grace:
        return (Cancel(job.id, f"the task is {_word(sight)} and its job has not ended", only_pending=False),)
    return ()


def _requeued(sight: Sight, _now: datetime, rules: Rules) -> Due:
    """The task shows as running while its job waits for its next start. Once it is settled, its job is cancelled."""
    return (*_without_duplicates(sight), *_requeued_job(sight, _owner(sight), rules))


def _requeued_job(sight: Sight, job: LiveJob, rules: Rules) -> Due:
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


def _owner(sight: Sight) -> LiveJob:
    assert sight.owner is not None
    return sight.owner


def _word(sight: Sight) -> str:
    if sight.status is TaskStatus.IN_PROGRESS:
        return "run by another agent"
    return sight.status.value if sight.status else "gone"


# ---------------------------------------------------------------- no job, in the queue


def _queued(_sight: Sight, _now: datetime, _rules: Rules) -> Due:
    return (Submit(),)


def _unclaimed_end(sight: Sight, _now: datetime, rules: Rules) -> Due:
    submitted, record = _submitted(sight), sight.record
    if sight.is_in_doubt:
        return ()
    if record is None:
        if sight.gone_for <= rules.lost_after:
            return ()
        words = f"{submitted.tries} jobs vanished without a trace before they took the task"
        return _again(sight, submitted, words, rules)
    if _may_live_elsewhere(sight, rules) or (_may_come_back(record) and not sight.steady):
        return ()
    verdict = explain(record, sight.clues)
    if verdict.fault is Fault.PERSON:
        reason = f"{verdict.reason} while it waited; enqueue the task again to go on"
        return _after_claim(sight, Refuse(verdict.status, reason))
    words = f"{submitted.tries} jobs ended without taking the task; the last: {verdict.reason}"
    return _again(sight, submitted, words, rules)


def _submitted(sight: Sight) -> Submitted:
    assert sight.submitted is not None
    return sight.submitted


def _unconfirmed(sight: Sight, now: datetime, rules: Rules) -> Due:
    """The job may exist. An error of sbatch in unknown words was a refusal if two looks, ``look_up_for`` apart, find no
    job while the scheduler answers; after other unclear answers the task is submitted again."""
    submitted = _submitted(sight)
    failed = submitted.doubt is Doubt.UNKNOWN_ERROR
    since = submitted.looked_at if failed else submitted.at
    late = since is not None and abs((now - since).total_seconds()) > rules.look_up_for
    refusal = f"the scheduler refused the job: {submitted.message}" if failed else ""
    said = (explain_doubt(submitted.doubt, submitted.message),) if submitted.doubt else ()
    return (*said, LookUp(submitted.tries + 1, give_up=late, refusal=refusal))


def explain_doubt(doubt: Doubt, message: str) -> Say:
    """What a task says while it is not known whether it has a job."""
    if doubt is Doubt.UNKNOWN_ERROR:
        text = f"sbatch failed: {message}; the task fails with that unless a job of it shows up"
        return Say(text, console=text)
    return Say(f"sbatch gave no clear answer, looking for its job: {message}")


def _again(sight: Sight, submitted: Submitted, words: str, rules: Rules) -> Due:
    if submitted.tries >= rules.max_tries:
        return _after_claim(sight, Refuse(TaskStatus.FAILED, words))
    return _after_claim(sight, Submit(submitted.tries + 1))


def _after_claim(sight: Sight, action: Action) -> Due:
    return (DropClaim(), action) if sight.claimed else (action,)


# ---------------------------------------------------------------- no job, not in the queue


def _unposted(_sight: Sight, _now: datetime, _rules: Rules) -> Due:
    return (Finish(),)


def _posted(sight: Sight, _now: datetime, _rules: Rules) -> Due:
    return (Close("its last word is posted", ship=bool(sight.ended and sight.ended.unsent)),)


def _returning(sight: Sight, _now: datetime, _rules: Rules) -> Due:
    reason = sight.ended.reason if sight.ended else ""
    if sight.runs and sight.abort_requested:
        return (Settle(TaskStatus.STOPPED, f"aborted by its user; {reason}"),)
    return (PutBack(reason),)


def _enqueued_again(_sight: Sight, _now: datetime, _rules: Rules) -> Due:
    return (Close("its user enqueued it anew"),)


def _over(sight: Sight, _now: datetime, _rules: Rules) -> Due:
    final = sight.status is not None and sight.status.is_final
    return (Close(f"the task is {_word(sight)}", ship=final),)


def _lost_race(_sight: Sight, _now: datetime, _rules: Rules) -> Due:
    return (Close("another agent runs the task"),)


def _taken_off(sight: Sight, _now: datetime, rules: Rules) -> Due:
    """By a refusal that is not through, or by an agent that died there."""
    if sight.is_in_doubt or sight.gone_for <= rules.put_back_after:
        return ()
    if sight.claimed is None or sight.claimed.job is None:
        return (PutBack("taken off the queue by an agent that died before it started or refused it"),)
    why = "taken off the queue by a job that ended before it started"
    if sight.restarts >= rules.max_restarts:
        return (Settle(TaskStatus.FAILED, f"{why}{restarted_before(sight.restarts)}"),)
    return (PutBack(why, restart=True),)


def _never_claimed(sight: Sight, now: datetime, rules: Rules) -> Due:
    """It left the queue: by its user, or by a job of ours whose claim is not visible here yet (NFS)."""
    submitted = sight.submitted
    unclear = submitted is not None and submitted.state is not Handed.ACCEPTED
    if unclear and submitted and abs((now - submitted.at).total_seconds()) <= rules.look_up_for:
        return ()  # a job may still turn up under this name, and must then be cancelled
    if sight.is_in_doubt:
        return ()  # it may run, and claim the task or have claimed it
    return (Close("the task left the queue"),) if sight.gone_for > rules.put_back_after else ()


def _unreported(sight: Sight, _now: datetime, rules: Rules) -> Due:
    ended, record = sight.ended, sight.record
    if sight.is_in_doubt:
        return ()
    if record is None:
        if sight.gone_for <= rules.lost_after:
            return ()
    elif _may_live_elsewhere(sight, rules) or (not sight.steady and (_may_come_back(record) or ended)):
        return ()
    return _conclude(sight, judge(sight), rules)


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
        return (Settle(verdict.status, f"{verdict.reason}{restarted_before(sight.restarts)}"),)
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


def _may_live_elsewhere(sight: Sight, rules: Rules) -> bool:
    """In a federation another cluster has the job: its end here says nothing for a while, and for ever nobody waits."""
    revoked = sight.record is not None and sight.record.state is JobState.REVOKED
    return revoked and sight.gone_for <= rules.lost_after


_DUE: Mapping[Phase, Callable[[Sight, datetime, Rules], Due]] = {
    Phase.QUEUED: _queued,
    Phase.UNCONFIRMED: _unconfirmed,
    Phase.PENDING: _pending,
    Phase.STARTED: _nothing,
    Phase.UNCLAIMED_END: _unclaimed_end,
    Phase.STALE_ENTRY: _nothing,
    Phase.DEQUEUED: _dequeued,
    Phase.NEVER_CLAIMED: _never_claimed,
    Phase.RUNNING: _running,
    Phase.REQUEUED: _requeued,
    Phase.ENDED_REQUEUED: _ended_requeued,
    Phase.WITHDRAWN: _withdrawn,
    Phase.DUPLICATE: _duplicate,
    Phase.UNPOSTED: _unposted,
    Phase.POSTED: _posted,
    Phase.RETURNING: _returning,
    Phase.TAKEN_OFF: _taken_off,
    Phase.ENQUEUED_AGAIN: _enqueued_again,
    Phase.UNCLEAR: _nothing,
    Phase.OVER: _over,
    Phase.LOST_RACE: _lost_race,
    Phase.BY_HAND: _nothing,
    Phase.UNREPORTED: _unreported,
}
