"""Policy of queue tasks: what is due for one attempt, given a snapshot and the time. Pure; ``daemon`` acts.

The decision table: ``domain.phase`` names its rows, ``_DUE`` at the end of this module gives the actions of each.
Absence of a fact is never taken for its opposite: what is uncertain waits, is looked up again, or is protected by the
claim (``queues.remove_task`` has exactly one winner).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from hpc_agent.domain.job import JobState, LiveJob, UnclearAnswer
from hpc_agent.domain.job_phase import WAITING_STATES, JobPhase, SubmissionView, gone_phase
from hpc_agent.domain.outcome import FailureClass, JobOutcome, classify_exit, classify_missing_job, restarted_before
from hpc_agent.domain.phase import Phase, phase_of
from hpc_agent.domain.snapshot import AttemptPolicy, AttemptSnapshot, RunOwner
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.wait_reason import WaitReason, explain_wait

Due = tuple[Action, ...]

_RULES = AttemptPolicy()


def decide(snapshot: AttemptSnapshot, now: datetime, rules: AttemptPolicy = _RULES) -> Due:
    """The actions that are due, in order; empty when waiting is right."""
    return (*_adopted(snapshot), *_DUE[phase_of(snapshot)](snapshot, now, rules))


def _nothing(_snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return ()


# ---------------------------------------------------------------- a job is there


def _adopted(snapshot: AttemptSnapshot) -> Due:
    """A job under the attempt's name is the one of its unclear submission."""
    unclear = snapshot.submitted is not None and snapshot.submitted.is_unclear
    return (AdoptJob(snapshot.jobs[0].id),) if snapshot.jobs and unclear else ()


def _without_duplicates(snapshot: AttemptSnapshot) -> Due:
    """Of a claimed task every job but the claiming one."""
    assert snapshot.claimed is not None
    return tuple(CancelJob(job.id, "the task is taken") for job in snapshot.jobs if job.id != snapshot.claimed.job)


def _duplicate(snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return _without_duplicates(snapshot)


def _dequeued(snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return tuple(
        CancelJob(job.id, "the task left the queue")
        for job in snapshot.jobs
        if job.state in WAITING_STATES and _is_spare(snapshot, job)
    )


def _is_spare(snapshot: AttemptSnapshot, job: LiveJob) -> bool:
    """Whether a waiting job has no use: its task left the queue, and no agent is known to have claimed it.

    A job whose agent recorded a claim intent may already own the task: that shows when it starts.
    """
    if snapshot.claimed is None or snapshot.claimed.job != job.id:
        return True
    wait = explain_wait(job)
    ours = snapshot.status is TaskStatus.IN_PROGRESS and snapshot.run_owner is RunOwner.OURS
    may_tell = ours or snapshot.status in (TaskStatus.QUEUED, TaskStatus.UNKNOWN)
    return not may_tell or wait.hopeless or wait.not_launched


def _pending(snapshot: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    job = snapshot.jobs[0]
    wait = explain_wait(job)
    if wait.hopeless:
        return (RejectTask(TaskStatus.FAILED, f"{wait.text}; fix this and enqueue the task again"),)
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


def _running(snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return _without_duplicates(snapshot)


def _ended_requeued(snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    """The scheduler would start the job again (RequeueExit), and the task's run is over."""
    assert snapshot.ended is not None
    finish: Due = (PublishExitReport(),) if snapshot.ended.names_status and not snapshot.ended.posted else ()
    return (*_without_duplicates(snapshot), *finish, CancelJob(_owner(snapshot).id, "its task has ended"))


def _withdrawn(snapshot: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    return (*_without_duplicates(snapshot), *_withdrawn_job(snapshot, _owner(snapshot), rules))


def _withdrawn_job(snapshot: AttemptSnapshot, job: LiveJob, rules: AttemptPolicy) -> Due:
    if job.state in WAITING_STATES:
        return (CancelJob(job.id, f"the task is {_word(snapshot)} and its requeued job has not started"),)
    # One that is still queued is about to be started; a script that completed its own task may go on. Otherwise the
    # executor stops by itself, and this one does not.
    goes_on = snapshot.status in (TaskStatus.QUEUED, TaskStatus.COMPLETED)
    stays = not goes_on and not (snapshot.ended and snapshot.ended.posted)
    if stays and snapshot.final_seconds > rules.stop_grace:
        return (CancelJob(job.id, f"the task is {_word(snapshot)} and its job has not ended", only_pending=False),)
    return ()


def _requeued(snapshot: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    """The task shows as running while its job waits for its next start. Once it is settled, its job is cancelled."""
    return (*_without_duplicates(snapshot), *_requeued_job(snapshot, _owner(snapshot), rules))


def _requeued_job(snapshot: AttemptSnapshot, job: LiveJob, rules: AttemptPolicy) -> Due:
    if snapshot.abort_requested:
        return (SetFinalStatus(TaskStatus.STOPPED, "aborted by its user while it waited to go on"),)
    wait = explain_wait(job)
    if wait.hopeless:
        return (SetFinalStatus(TaskStatus.FAILED, f"{wait.text}; fix this and enqueue the task again"),)
    if wait.not_launched:
        if job.restarts >= rules.max_tries + (snapshot.claimed.restart_count if snapshot.claimed else 0):
            return (SetFinalStatus(TaskStatus.FAILED, f"{wait.text}, {job.restarts} times; enqueue the task again"),)
        return (ReleaseJob(job.id), _tried_again(wait, job, ping=True))
    line = wait.text if wait.stuck else f"{job.title} was requeued (start {job.restarts + 1}) and waits"
    return (SetStatusMessage(f"requeued, waiting: {wait.text}", ping=True, console=line),)


def _owner(snapshot: AttemptSnapshot) -> LiveJob:
    assert snapshot.owner is not None
    return snapshot.owner


def _word(snapshot: AttemptSnapshot) -> str:
    if snapshot.status is TaskStatus.IN_PROGRESS:
        return "run by another agent"
    return snapshot.status.value if snapshot.status else "gone"


# ---------------------------------------------------------------- no job, in the queue


def _queued(_snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return (SubmitJob(),)


def _unclaimed_end(snapshot: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    submitted, phase = _submitted(snapshot), gone_phase(snapshot, rules.lost_after)
    if phase is JobPhase.LOST:
        message = f"{submitted.submit_count} jobs disappeared without a record before they claimed the task"
        return _again(snapshot, submitted, message, rules)
    if phase is not JobPhase.ENDED or snapshot.record is None:
        return ()
    outcome = classify_exit(snapshot.record, snapshot.evidence)
    if outcome.failure_class is FailureClass.CANCELLED:
        reason = f"{outcome.reason} while it waited; enqueue the task again to go on"
        return _after_claim(snapshot, RejectTask(outcome.status, reason))
    message = f"{submitted.submit_count} jobs ended without claiming the task; the last: {outcome.reason}"
    return _again(snapshot, submitted, message, rules)


def _submitted(snapshot: AttemptSnapshot) -> SubmissionView:
    assert snapshot.submitted is not None
    return snapshot.submitted


def _unconfirmed(snapshot: AttemptSnapshot, now: datetime, rules: AttemptPolicy) -> Due:
    """The job may exist. An unclear error of sbatch was a refusal if no job is found (``is_search_over``); after other
    unclear answers the task is submitted again."""
    submitted = _submitted(snapshot)
    failed = submitted.doubt is UnclearAnswer.UNKNOWN_ERROR
    late = submitted.is_search_over(now, rules.look_up_seconds)
    refusal = f"the scheduler refused the job: {submitted.message}" if failed else ""
    message = (explain_doubt(submitted.doubt, submitted.message),) if submitted.doubt else ()
    return (*message, FindByName(submitted.submit_count + 1, give_up=late, refusal=refusal))


def explain_doubt(doubt: UnclearAnswer, message: str) -> SetStatusMessage:
    """What a task says while it is not known whether it has a job."""
    if doubt is UnclearAnswer.UNKNOWN_ERROR:
        text = f"sbatch failed: {message}; the task fails with that unless a job of it shows up"
        return SetStatusMessage(text, console=text)
    return SetStatusMessage(f"sbatch gave no clear answer, looking for its job: {message}")


def _again(snapshot: AttemptSnapshot, submitted: SubmissionView, message: str, rules: AttemptPolicy) -> Due:
    if submitted.submit_count >= rules.max_tries:
        return _after_claim(snapshot, RejectTask(TaskStatus.FAILED, message))
    return _after_claim(snapshot, SubmitJob(submitted.submit_count + 1))


def _after_claim(snapshot: AttemptSnapshot, action: Action) -> Due:
    return (DropClaim(), action) if snapshot.claimed else (action,)


# ---------------------------------------------------------------- no job, not in the queue


def _unposted(_snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return (PublishExitReport(),)


def _posted(snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return (MarkDone("its exit report is published", ship=bool(snapshot.ended and snapshot.ended.unsent)),)


def _put_back(snapshot: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    """The next attempt has the task from its start on; until then its user may take it off the queue."""
    ended = snapshot.ended
    if ended is not None and ended.unsent:
        return (MarkDone("it is back in its queue", ship=True),)
    if snapshot.status in (TaskStatus.QUEUED, TaskStatus.UNKNOWN):
        return ()
    if not snapshot.is_dequeued:
        return (MarkDone("it was put back to its queue and has left it"),)
    if snapshot.abort_requested or snapshot.dequeued_seconds > rules.requeue_after:
        return (SetFinalStatus(TaskStatus.STOPPED, "taken off its queue, to which it had been put back, by its user"),)
    return ()


def _returning(snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    reason = snapshot.ended.reason if snapshot.ended else ""
    if snapshot.runs and snapshot.abort_requested:
        return (SetFinalStatus(TaskStatus.STOPPED, f"aborted by its user; {reason}"),)
    return (Requeue(reason),)


def _enqueued_again(_snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return (MarkDone("its user enqueued it again"),)


def _over(snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    final = snapshot.status is not None and snapshot.status.is_final
    return (MarkDone(f"the task is {_word(snapshot)}", ship=final),)


def _lost_race(_snapshot: AttemptSnapshot, _now: datetime, _rules: AttemptPolicy) -> Due:
    return (MarkDone("another agent runs the task"),)


def _taken_off(snapshot: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    """Off its queue by a refusal that was not finished, or by an agent that died there."""
    if snapshot.is_unconfirmed or snapshot.missing_seconds <= rules.requeue_after:
        return ()
    if snapshot.claimed is None or snapshot.claimed.job is None:
        return (Requeue("taken off the queue by an agent that died before it started or refused it"),)
    # Jobs of such a task that wait are cancelled by the daemon itself (``_withdrawn_job``): they have no nodes.
    if snapshot.record and snapshot.record.state is JobState.CANCELLED and snapshot.record.nodes:
        outcome = classify_exit(snapshot.record)
        reason = f"{outcome.reason} before the task started; enqueue the task again to go on"
        return (SetFinalStatus(outcome.status, reason),)
    why = "taken off the queue by a job that ended before it started"
    if snapshot.requeues_used >= rules.max_restarts:
        return (SetFinalStatus(TaskStatus.FAILED, f"{why}{restarted_before(snapshot.requeues_used)}"),)
    return (Requeue(why, restart=True),)


def _never_claimed(snapshot: AttemptSnapshot, now: datetime, rules: AttemptPolicy) -> Due:
    """It left the queue: by its user, or by a job of ours whose claim is not visible here yet (NFS)."""
    submitted = snapshot.submitted
    if submitted and submitted.is_unclear and abs((now - submitted.at).total_seconds()) <= rules.look_up_seconds:
        return ()  # a job may still turn up under this name, and must then be cancelled
    if snapshot.is_unconfirmed:
        return ()  # it may run, and claim the task or have claimed it
    return (MarkDone("the task left the queue"),) if snapshot.missing_seconds > rules.requeue_after else ()


def _unreported(snapshot: AttemptSnapshot, _now: datetime, rules: AttemptPolicy) -> Due:
    phase = gone_phase(snapshot, rules.lost_after)
    # A report without a status may be followed by another start of the job, whatever the record.
    certain = phase is JobPhase.ENDED and (snapshot.record_stable or snapshot.ended is None)
    if phase is not JobPhase.LOST and not certain:
        return ()
    return _conclude(snapshot, classify_missing_job(snapshot), rules)


def _conclude(snapshot: AttemptSnapshot, outcome: JobOutcome, rules: AttemptPolicy) -> Due:
    """A final status, or another attempt where that is right and policy allows it."""
    assert snapshot.claimed is not None
    if snapshot.abort_requested:
        return (SetFinalStatus(TaskStatus.STOPPED, f"aborted by its user; {outcome.reason}"),)
    harmless = not snapshot.claimed.user_process_started and outcome.failure_class is not FailureClass.CANCELLED
    again = harmless or outcome.failure_class is FailureClass.INFRASTRUCTURE
    again = again or (outcome.failure_class is FailureClass.TIME_LIMIT and rules.requeue_on_time_limit)
    if not again:
        return (SetFinalStatus(outcome.status, outcome.reason),)
    if snapshot.requeues_used >= rules.max_restarts:
        return (SetFinalStatus(outcome.status, f"{outcome.reason}{restarted_before(snapshot.requeues_used)}"),)
    reason = outcome.reason.removesuffix("; enqueue the task again")
    return (Requeue(reason, restart=True, node=_to_blame(snapshot, outcome, rules)),)


def _to_blame(snapshot: AttemptSnapshot, outcome: JobOutcome, rules: AttemptPolicy) -> str:
    """Node that ended a job soon after its start; empty for a job on several nodes, where the one is not known."""
    record = snapshot.record
    if record is None or outcome.failure_class is not FailureClass.INFRASTRUCTURE or record.state is JobState.PREEMPTED:
        return ""
    ran = (record.ended - record.started).total_seconds() if record.started and record.ended else 0.0
    return record.nodes if ran <= rules.quick_death and not set(record.nodes) & set(",[") else ""


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
    Phase.PUT_BACK: _put_back,
    Phase.RETURNING: _returning,
    Phase.TAKEN_OFF: _taken_off,
    Phase.ENQUEUED_AGAIN: _enqueued_again,
    Phase.UNCLEAR: _nothing,
    Phase.OVER: _over,
    Phase.LOST_RACE: _lost_race,
    Phase.BY_HAND: _nothing,
    Phase.UNREPORTED: _unreported,
}
