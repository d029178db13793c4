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
    AdoptJob,
    CancelJob,
    DropClaim,
    FindByName,
    MarkDone,
    PublishExitReport,
    RejectTask,
    ReleaseJob,
    Requeue,
    SetFinalStatus,
    SetStatusMessage,
    SubmitJob,
)
from hpc_agent.domain.classify import classify_missing_job
from hpc_agent.domain.job import JobRecord, JobState, LiveJob, UnclearAnswer
from hpc_agent.domain.outcome import FailureClass, JobOutcome, classify_exit, restarted_before
from hpc_agent.domain.phase import WAITING_STATES, Phase, phase_of
from hpc_agent.domain.snapshot import AttemptPolicy, AttemptSnapshot, RunOwner, SubmissionState, SubmissionView
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.wait_reason import WaitReason, explain_wait

Due = tuple[Action, ...]

_RULES = AttemptPolicy()


def decide(sight: AttemptSnapshot, now: datetime, rules: AttemptPolicy = _RULES) -> Due:
    """The actions that are due, in order; empty when waiting is right."""
    if sight.is_in_doubt and sight.unconfirmed_seconds > rules.doubted_at_most:
        # Waited for long enough: accounting may show RUNNING forever of a job that the controller lost.
        sight = replace(sight, record=None)
    return (*_adopted(sight), *_DUE[phase_of(sight)](sight, now, rules))


def _nothing(_sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return ()


# ---------------------------------------------------------------- a job is there


def _adopted(sight: AttemptSnapshot) -> Due:
    """A job under the attempt's name is the one of its unclear submission."""
    unclear = sight.submitted is not None and sight.submitted.state is not SubmissionState.ACCEPTED
    return (AdoptJob(sight.jobs[0].id),) if sight.jobs and unclear else ()


def _without_duplicates(sight: AttemptSnapshot) -> Due:
    """Of a claimed task every job but the claiming one."""
    assert sight.claimed is not None
    return tuple(CancelJob(job.id, "the task is taken") for job in sight.jobs if job.id != sight.claimed.job)


def _duplicate(sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return _without_duplicates(sight)


def _dequeued(sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return tuple(
        CancelJob(job.id, "the task left the queue")
        for job in sight.jobs
        if job.state in WAITING_STATES and _is_spare(sight, job)
    )


def _is_spare(sight: AttemptSnapshot, job: LiveJob) -> bool:
    """Of a task that left its queue and that nobody is known to have won: whether its waiting job is of no use.

    A job of which an agent wrote down its intent before may have taken the task off: it tells when it starts.
    """
    if sight.claimed is None or sight.claimed.job != job.id:
        return True
    wait = explain_wait(job)
    ours = sight.status is TaskStatus.IN_PROGRESS and sight.hold is RunOwner.OURS
    may_tell = ours or sight.status in (TaskStatus.QUEUED, TaskStatus.UNKNOWN)
    return not may_tell or wait.hopeless or wait.not_launched


def _pending(sight: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    job = sight.jobs[0]
    wait = explain_wait(job)
    if wait.hopeless:
        return (RejectTask(TaskStatus.FAILED, f"{wait.text}; enqueue the task again when that is mended"),)
    if wait.not_launched:
        if job.restarts >= rules.max_tries:
            return (RejectTask(TaskStatus.FAILED, f"{wait.text}, {job.restarts} times; enqueue the task again"),)
        return (ReleaseJob(job.id), _tried_again(wait, job))
    if job.reason in ("", "None"):
        return ()  # not looked at by the scheduler yet
    return (SetStatusMessage(wait.text, console=wait.text if wait.stuck else ""),)


def _tried_again(wait: WaitReason, job: LiveJob, *, ping: bool = False) -> SetStatusMessage:
    text = f"{wait.text}; it is tried again ({job.restarts})"
    return SetStatusMessage(text, ping, console=text)


def _running(sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return _without_duplicates(sight)


def _ended_requeued(sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    """That the scheduler would start the job again (RequeueExit) is of no use to a task whose run is over."""
    assert sight.ended is not None
    finish: Due = (PublishExitReport(),) if sight.ended.names_status and not sight.ended.posted else ()
    return (*_without_duplicates(sight), *finish, CancelJob(_owner(sight).id, "its task has ended"))


def _withdrawn(sight: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    return (*_without_duplicates(sight), *_withdrawn_job(sight, _owner(sight), rules))


def _withdrawn_job(sight: AttemptSnapshot, job: LiveJob, rules: AttemptPolicy) -> Due:
    if job.state in WAITING_STATES:
        return (CancelJob(job.id, f"the task is {_word(sight)} and its requeued job has not started"),)
    # One that is still queued is about to be started; a script that completed its own task may go on. Otherwise the
    # executor stops by itself, and this one does not.
    goes_on = sight.status in (TaskStatus.QUEUED, TaskStatus.COMPLETED)
    stays = not goes_on and not (sight.ended and sight.ended.posted)
    if stays and sight.final_seconds > rules.stop_grace:
        return (CancelJob(job.id, f"the task is {_word(sight)} and its job has not ended", only_pending=False),)
    return ()


def _requeued(sight: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    """The task shows as running while its job waits for its next start. Once it is settled, its job is cancelled."""
    return (*_without_duplicates(sight), *_requeued_job(sight, _owner(sight), rules))


def _requeued_job(sight: AttemptSnapshot, job: LiveJob, rules: AttemptPolicy) -> Due:
    if sight.abort_requested:
        return (SetFinalStatus(TaskStatus.STOPPED, "aborted by its user while it waited to go on"),)
    wait = explain_wait(job)
    if wait.hopeless:
        return (SetFinalStatus(TaskStatus.FAILED, f"{wait.text}; enqueue the task again when that is mended"),)
    if wait.not_launched:
        if job.restarts >= rules.max_tries + (sight.claimed.start if sight.claimed else 0):
            return (SetFinalStatus(TaskStatus.FAILED, f"{wait.text}, {job.restarts} times; enqueue the task again"),)
        return (ReleaseJob(job.id), _tried_again(wait, job, ping=True))
    line = wait.text if wait.stuck else f"{job.title} was requeued (start {job.restarts + 1}) and waits"
    return (SetStatusMessage(f"requeued, waiting: {wait.text}", ping=True, console=line),)


def _owner(sight: AttemptSnapshot) -> LiveJob:
    assert sight.owner is not None
    return sight.owner


def _word(sight: AttemptSnapshot) -> str:
    if sight.status is TaskStatus.IN_PROGRESS:
        return "run by another agent"
    return sight.status.value if sight.status else "gone"


# ---------------------------------------------------------------- no job, in the queue


def _queued(_sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return (SubmitJob(),)


def _unclaimed_end(sight: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    submitted, record = _submitted(sight), sight.record
    if sight.is_in_doubt:
        return ()
    if record is None:
        if sight.missing_seconds <= rules.lost_after:
            return ()
        words = f"{submitted.tries} jobs vanished without a trace before they took the task"
        return _again(sight, submitted, words, rules)
    if _may_live_elsewhere(sight, rules) or (_may_come_back(record) and not sight.record_stable):
        return ()
    verdict = classify_exit(record, sight.clues)
    if verdict.fault is FailureClass.PERSON:
        reason = f"{verdict.reason} while it waited; enqueue the task again to go on"
        return _after_claim(sight, RejectTask(verdict.status, reason))
    words = f"{submitted.tries} jobs ended without taking the task; the last: {verdict.reason}"
    return _again(sight, submitted, words, rules)


def _submitted(sight: AttemptSnapshot) -> SubmissionView:
    assert sight.submitted is not None
    return sight.submitted


def _unconfirmed(sight: AttemptSnapshot, now: datetime, rules: AttemptPolicy) -> Due:
    """The job may exist. An error of sbatch in unknown words was a refusal if two looks, ``look_up_seconds`` apart,
    find no job while the scheduler answers; after other unclear answers the task is submitted again."""
    submitted = _submitted(sight)
    failed = submitted.doubt is UnclearAnswer.UNKNOWN_ERROR
    since = submitted.looked_at if failed else submitted.at
    late = since is not None and abs((now - since).total_seconds()) > rules.look_up_seconds
    refusal = f"the scheduler refused the job: {submitted.message}" if failed else ""
    said = (explain_doubt(submitted.doubt, submitted.message),) if submitted.doubt else ()
    return (*said, FindByName(submitted.tries + 1, give_up=late, refusal=refusal))


def explain_doubt(doubt: UnclearAnswer, message: str) -> SetStatusMessage:
    """What a task says while it is not known whether it has a job."""
    if doubt is UnclearAnswer.UNKNOWN_ERROR:
        text = f"sbatch failed: {message}; the task fails with that unless a job of it shows up"
        return SetStatusMessage(text, console=text)
    return SetStatusMessage(f"sbatch gave no clear answer, looking for its job: {message}")


def _again(sight: AttemptSnapshot, submitted: SubmissionView, words: str, rules: AttemptPolicy) -> Due:
    if submitted.tries >= rules.max_tries:
        return _after_claim(sight, RejectTask(TaskStatus.FAILED, words))
    return _after_claim(sight, SubmitJob(submitted.tries + 1))


def _after_claim(sight: AttemptSnapshot, action: Action) -> Due:
    return (DropClaim(), action) if sight.claimed else (action,)


# ---------------------------------------------------------------- no job, not in the queue


def _unposted(_sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return (PublishExitReport(),)


def _posted(sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return (MarkDone("its last word is posted", ship=bool(sight.ended and sight.ended.unsent)),)


def _returning(sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    reason = sight.ended.reason if sight.ended else ""
    if sight.runs and sight.abort_requested:
        return (SetFinalStatus(TaskStatus.STOPPED, f"aborted by its user; {reason}"),)
    return (Requeue(reason),)


def _enqueued_again(_sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return (MarkDone("its user enqueued it anew"),)


def _over(sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    final = sight.status is not None and sight.status.is_final
    return (MarkDone(f"the task is {_word(sight)}", ship=final),)


def _lost_race(_sight: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return (MarkDone("another agent runs the task"),)


def _taken_off(sight: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    """By a refusal that is not through, or by an agent that died there."""
    if sight.is_in_doubt or sight.missing_seconds <= rules.requeue_after:
        return ()
    if sight.claimed is None or sight.claimed.job is None:
        return (Requeue("taken off the queue by an agent that died before it started or refused it"),)
    why = "taken off the queue by a job that ended before it started"
    if sight.restarts >= rules.max_restarts:
        return (SetFinalStatus(TaskStatus.FAILED, f"{why}{restarted_before(sight.restarts)}"),)
    return (Requeue(why, restart=True),)


def _never_claimed(sight: AttemptSnapshot, now: datetime, rules: AttemptPolicy) -> Due:
    """It left the queue: by its user, or by a job of ours whose claim is not visible here yet (NFS)."""
    submitted = sight.submitted
    unclear = submitted is not None and submitted.state is not SubmissionState.ACCEPTED
    if unclear and submitted and abs((now - submitted.at).total_seconds()) <= rules.look_up_seconds:
        return ()  # a job may still turn up under this name, and must then be cancelled
    if sight.is_in_doubt:
        return ()  # it may run, and claim the task or have claimed it
    return (MarkDone("the task left the queue"),) if sight.missing_seconds > rules.requeue_after else ()


def _unreported(sight: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    ended, record = sight.ended, sight.record
    if sight.is_in_doubt:
        return ()
    if record is None:
        if sight.missing_seconds <= rules.lost_after:
            return ()
    elif _may_live_elsewhere(sight, rules) or (not sight.record_stable and (_may_come_back(record) or ended)):
        return ()
    return _conclude(sight, classify_missing_job(sight), rules)


def _conclude(sight: AttemptSnapshot, verdict: JobOutcome, rules: AttemptPolicy) -> Due:
    """A final status, or another attempt where that is right and policy allows it."""
    assert sight.claimed is not None
    if sight.abort_requested:
        return (SetFinalStatus(TaskStatus.STOPPED, f"aborted by its user; {verdict.reason}"),)
    harmless = not sight.claimed.begun and verdict.fault is not FailureClass.PERSON
    again = harmless or verdict.fault is FailureClass.SITE
    again = again or (verdict.fault is FailureClass.TIME and rules.requeue_on_time_limit)
    if not again:
        return (SetFinalStatus(verdict.status, verdict.reason),)
    if sight.restarts >= rules.max_restarts:
        return (SetFinalStatus(verdict.status, f"{verdict.reason}{restarted_before(sight.restarts)}"),)
    reason = verdict.reason.removesuffix("; enqueue the task again")
    return (Requeue(reason, restart=True, node=_to_blame(sight, verdict, rules)),)


def _to_blame(sight: AttemptSnapshot, verdict: JobOutcome, rules: AttemptPolicy) -> str:
    """The node, if it ended a job soon after its start; nothing of a job on several, for nobody knows which it was."""
    record = sight.record
    if record is None or verdict.fault is not FailureClass.SITE or record.state is JobState.PREEMPTED:
        return ""
    ran = (record.ended - record.started).total_seconds() if record.started and record.ended else 0.0
    return record.nodes if ran <= rules.quick_death and not set(record.nodes) & set(",[") else ""


def _may_come_back(record: JobRecord) -> bool:
    return record.state.may_be_requeued


def _may_live_elsewhere(sight: AttemptSnapshot, rules: AttemptPolicy) -> bool:
    """In a federation another cluster has the job: its end here says nothing for a while, and for ever nobody waits."""
    revoked = sight.record is not None and sight.record.state is JobState.REVOKED
    return revoked and sight.missing_seconds <= rules.lost_after


_DUE: Mapping[Phase, Callable[[AttemptSnapshot, datetime, AttemptPolicy], Due]] = {
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
