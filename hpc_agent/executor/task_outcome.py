"""How a run ended, as a status, a reason and an exit code. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from hpc_agent.domain import outcome
from hpc_agent.domain.outcome import in_one_line
from hpc_agent.domain.termination import TerminationCause
from hpc_agent.executor.stop import StopReason

Final = Literal["completed", "failed", "stopped", "none"]


@dataclass(frozen=True)
class TaskOutcome:
    status: Final
    reason: str
    exit_code: int
    """Of this program: the user's process's own, 128 + n for signal n, 1 when it never started."""
    cause: TerminationCause | None = None
    """Set when the verdict is not ours: the daemon asks the scheduler, or the same job goes on."""
    requeue: bool = False
    """The job is to be started again, by our own wish."""
    fenced: bool = False
    """Somebody else speaks for the task now: not a word from us."""
    started: bool = True
    """False if the user's process never ran; the console then has the reason in full."""

    @property
    def last_line(self) -> str:
        """What the console ends with, in the reference's words where it has some."""
        if self.status == "completed":
            return "Process completed successfully"
        if not self.started:
            return "The task could not be prepared"
        if self.status == "failed":
            return f"Process failed: {self.reason}"
        return f"Process terminated: {self.reason}"


@dataclass(frozen=True)
class ExitContext:
    """What else is known when the process has ended."""

    why: StopReason | None = None
    cause: TerminationCause | None = None
    """The scheduler's reason, if ``why`` is SIGNAL."""
    watched: bool = False
    """A daemon can tell more, and goes on from here."""
    limit: float | None = None
    ran_for: float | None = None
    """Seconds: the job's time limit, and how long it ran."""
    may_requeue: bool = False
    """The queue's policy is to go on after a time limit, and that is not used up."""
    restarts: int = 0
    """How often it was."""
    out_of_memory: str = ""
    """The sentence, if memory ran out."""
    file_trouble: str = ""
    """What the shared file system refused meanwhile, in its own words."""


def ended(code: int, met: ExitContext) -> TaskOutcome:
    """The process ended with ``code`` (negative: signal)."""
    exit_code = 128 - code if code < 0 else code
    why = met.why
    if why is StopReason.FENCED or why is StopReason.TAKEN_BACK:
        return TaskOutcome("none", why.value, exit_code or 1, fenced=why is StopReason.FENCED)
    if why is StopReason.TIME_LIMIT or (why is StopReason.SIGNAL and met.cause is TerminationCause.TIME_LIMIT):
        return _out_of_time(exit_code or 1, met)
    if why is StopReason.SIGNAL:
        return _told_to_end(exit_code or 1, met)
    if why is not None:
        return TaskOutcome("stopped", why.value, exit_code or 1)
    if code == 0:
        return TaskOutcome("completed", "worker execution done", 0)
    if met.out_of_memory:
        return TaskOutcome("failed", met.out_of_memory, exit_code)
    how = f"was ended by {_signal(-code)}" if code < 0 else f"exit code {code}"
    return TaskOutcome("failed", f"worker execution {how}{_meanwhile(met)}", exit_code)


def _meanwhile(met: ExitContext) -> str:
    if not met.file_trouble:
        return ""
    return (
        f"; the file system of its console failed while it ran ({met.file_trouble}), which may be why: look at its "
        "last lines, and at that file system"
    )


def _out_of_time(exit_code: int, met: ExitContext) -> TaskOutcome:
    reason = outcome.time_limit(met.limit, met.ran_for, told_ahead=met.why is StopReason.TIME_LIMIT)
    if not met.may_requeue:
        return TaskOutcome("failed", f"{reason}{outcome.restarted_before(met.restarts)}", exit_code)
    # After the warning there is time to ask for another start; at the limit itself the daemon puts the task back.
    return TaskOutcome(
        "stopped", reason, exit_code, cause=TerminationCause.TIME_LIMIT, requeue=met.why is StopReason.TIME_LIMIT
    )


_WORDS = {
    TerminationCause.REQUEUED: "requeued, waiting: the scheduler starts the job again",
    TerminationCause.PREEMPTED: "the job was preempted",
    TerminationCause.NODE_FAILED: "the scheduler takes the node for dead",
    TerminationCause.CANCELLED: "the job was cancelled",
    TerminationCause.SOMEBODY: "somebody sent SIGTERM to the job; the scheduler knows of no reason",
}


def _told_to_end(exit_code: int, met: ExitContext) -> TaskOutcome:
    reason = _WORDS.get(met.cause or TerminationCause.UNKNOWN, "the job was told to end")
    goes_on = met.cause is TerminationCause.REQUEUED or (met.watched and met.cause is not TerminationCause.SOMEBODY)
    return TaskOutcome("stopped", reason, exit_code, cause=(met.cause or TerminationCause.UNKNOWN) if goes_on else None)


def never_started(reason: str) -> TaskOutcome:
    """The task could not be prepared."""
    return TaskOutcome("failed", in_one_line(reason), 1, started=False)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
