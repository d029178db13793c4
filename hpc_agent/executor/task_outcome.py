"""Outcome of a run: status, reason and exit code, from what is known of its end. Pure."""

from __future__ import annotations

import signal
from typing import Literal

import msgspec

from hpc_agent.domain import outcome
from hpc_agent.domain.outcome import in_one_line
from hpc_agent.domain.termination_cause import TerminationCause
from hpc_agent.executor.stop_conditions import StopReason

Final = Literal["completed", "failed", "stopped", "none"]


class TaskOutcome(msgspec.Struct, frozen=True):
    status: Final
    reason: str
    exit_code: int
    """Of this program: the user's process's own, 128 + n for signal n, 1 when it never started."""
    cause: TerminationCause | None = None
    """Set when the final status is not ours to post: the daemon asks the scheduler, or the same job goes on."""
    requeue: bool = False
    """The job is to be started again, at our own request."""
    fenced: bool = False
    """Another run reports for the task now: this one reports nothing."""
    started: bool = True
    """False if the user's process never ran; the console then has the reason in full."""
    ranks_may_run: bool = False
    """A node of the task's did not say that its ranks are gone."""

    @property
    def last_line(self) -> str:
        """Last line of the console, as the reference agent writes it where it writes one."""
        if self.status == "completed":
            return "Process completed successfully"
        if not self.started:
            return "The task could not be prepared"
        if self.status == "failed":
            return f"Process failed: {self.reason}"
        return f"Process terminated: {self.reason}"


class ExitContext(msgspec.Struct, frozen=True):
    """Facts about an end in addition to the exit code."""

    reason: StopReason | None = None
    cause: TerminationCause | None = None
    """The scheduler's reason, if ``reason`` is SIGNAL."""
    daemon_managed: bool = False
    """A daemon knows more, and goes on from here."""
    limit: float | None = None
    ran_for: float | None = None
    """Seconds: the job's time limit, and how long it ran."""
    may_requeue: bool = False
    """The queue's policy is to requeue at the time limit, and its budget is not used up."""
    requeues_used: int = 0
    out_of_memory: str = ""
    """The sentence, if memory ran out."""
    scheduler_failure: str = ""
    """The sentence, if the scheduler did not start the task's processes in its job, or ended them by mistake."""
    console_cause: str = ""
    """What the process died of and the next step, where its last lines show it."""
    file_trouble: str = ""
    """Error of the shared file system meanwhile."""


def ended(code: int, context: ExitContext) -> TaskOutcome:
    """The process ended with ``code`` (negative: signal)."""
    exit_code = 128 - code if code < 0 else code
    reason = context.reason
    if reason is StopReason.FENCED or reason is StopReason.TAKEN_BACK:
        return TaskOutcome("none", reason.value, exit_code or 1, fenced=reason is StopReason.FENCED)
    by_scheduler = reason is StopReason.SIGNAL
    if reason is StopReason.TIME_LIMIT or (by_scheduler and context.cause is TerminationCause.TIME_LIMIT):
        return _out_of_time(exit_code or 1, context)
    if by_scheduler:
        return _terminated(exit_code or 1, context)
    if reason is not None:
        return TaskOutcome("stopped", reason.value, exit_code or 1)
    if code == 0:
        return TaskOutcome("completed", "worker execution done", 0)
    if context.out_of_memory:
        return TaskOutcome("failed", context.out_of_memory, exit_code)
    if context.scheduler_failure:
        return failed_by_scheduler(context.scheduler_failure, exit_code, daemon_managed=context.daemon_managed)
    how = f"was ended by {_signal(-code)}" if code < 0 else f"exit code {code}"
    cause = f": {context.console_cause}" if context.console_cause else ""
    return TaskOutcome("failed", in_one_line(f"worker execution {how}{cause}{_meanwhile(context)}"), exit_code)


def _meanwhile(context: ExitContext) -> str:
    if not context.file_trouble:
        return ""
    return (
        f"; the file system of its console failed while it ran ({context.file_trouble}), which may be why: look at its "
        "last lines, and at that file system"
    )


def _out_of_time(exit_code: int, context: ExitContext) -> TaskOutcome:
    reason = outcome.time_limit(context.limit, context.ran_for, warned_before=context.reason is StopReason.TIME_LIMIT)
    if not context.may_requeue:
        return TaskOutcome("failed", f"{reason}{outcome.restarted_before(context.requeues_used)}", exit_code)
    # After the warning there is time to ask for another start; at the limit itself the daemon puts the task back.
    return TaskOutcome(
        "stopped", reason, exit_code, cause=TerminationCause.TIME_LIMIT, requeue=context.reason is StopReason.TIME_LIMIT
    )


_REASONS = {
    TerminationCause.REQUEUED: "requeued, waiting: the scheduler starts the job again",
    TerminationCause.PREEMPTED: "the job was preempted",
    TerminationCause.NODE_FAILED: "the scheduler takes the node for dead",
    TerminationCause.CANCELLED: "the job was cancelled",
    TerminationCause.EXTERNAL_SIGNAL: "the job received SIGTERM from outside the scheduler, which has no reason for it",
}


def _terminated(exit_code: int, context: ExitContext) -> TaskOutcome:
    cause = context.cause or TerminationCause.UNKNOWN
    reason = _REASONS.get(cause, "the job received SIGTERM")
    by_daemon = context.daemon_managed and cause is not TerminationCause.EXTERNAL_SIGNAL
    goes_on = cause is TerminationCause.REQUEUED or by_daemon
    return TaskOutcome("stopped", reason, exit_code, cause=cause if goes_on else None)


def never_started(reason: str) -> TaskOutcome:
    """The task could not be prepared."""
    return TaskOutcome("failed", in_one_line(reason), 1, started=False)


def failed_by_scheduler(reason: str, exit_code: int = 1, *, daemon_managed: bool) -> TaskOutcome:
    """The scheduler did not start the task's ranks or the agents of its nodes, or ended them by mistake, which says
    nothing of the task: a daemon puts it back into its queue."""
    cause = TerminationCause.NOT_LAUNCHED if daemon_managed else None
    return TaskOutcome("failed", in_one_line(reason), exit_code, cause=cause)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
