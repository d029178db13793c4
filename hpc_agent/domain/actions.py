"""Actions that ``decide`` finds due; ``daemon.act`` carries them out. Each can be repeated after a death in it."""

from __future__ import annotations

import msgspec

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.status import TaskStatus


class SubmitJob(msgspec.Struct, frozen=True):
    """Stage, render and submit, as try number ``number``."""

    number: int = 1


class AdoptJob(msgspec.Struct, frozen=True):
    """A job under the attempt's name exists: remember its id."""

    job: JobId


class FindByName(msgspec.Struct, frozen=True):
    """Ask squeue and sacct for the name. Nothing found means, if ``give_up`` is set: submit as try ``number``, or where
    sbatch had failed, fail the task with ``refusal``."""

    number: int
    give_up: bool
    refusal: str = ""


class CancelJob(msgspec.Struct, frozen=True):
    job: JobId
    why: str
    only_pending: bool = True


class ReleaseJob(msgspec.Struct, frozen=True):
    """The scheduler holds the job because it could not start it: let it try again."""

    job: JobId


class SetStatusMessage(msgspec.Struct, frozen=True):
    """Show ``message`` as the task's status message, and ``console``, if any, as a line of its console, once."""

    message: str
    ping: bool = False
    console: str = ""


class PublishExitReport(msgspec.Struct, frozen=True):
    """Send the rest of the console and post what the report says."""


class SetFinalStatus(msgspec.Struct, frozen=True):
    """Conclude a run that left no last word: report, console, final status."""

    status: TaskStatus
    reason: str


class Requeue(msgspec.Struct, frozen=True):
    """To the head of its queue. ``restart``: it counts against ``max_restarts``; ``node`` may have been the cause."""

    why: str
    restart: bool = False
    node: str = ""


class RejectTask(msgspec.Struct, frozen=True):
    """Claim the queued task and give it a final status."""

    status: TaskStatus
    reason: str


class DropClaim(msgspec.Struct, frozen=True):
    """An intent whose job the scheduler no longer has, while the task is still queued: it must not block the next job.

    Should its owner live on where the scheduler cannot see it, the removal from the queue still has one winner.
    """


class MarkDone(msgspec.Struct, frozen=True):
    """Nothing is left to do for this attempt. ``ship``: but for the rest of its console."""

    why: str
    ship: bool = False


Action = (
    SubmitJob
    | AdoptJob
    | FindByName
    | CancelJob
    | ReleaseJob
    | SetStatusMessage
    | PublishExitReport
    | SetFinalStatus
    | Requeue
    | RejectTask
    | DropClaim
    | MarkDone
)
