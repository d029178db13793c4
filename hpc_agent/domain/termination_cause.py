"""Cause of a job's termination: asked of the scheduler, never guessed from the signal.

See docs/internals/slurm.md#signals.
"""

from __future__ import annotations

from enum import Enum

from hpc_agent.domain.job import CurrentJob, JobState


class TerminationCause(str, Enum):
    TIME_LIMIT = "time limit"
    REQUEUED = "requeued"
    """It will be started again, by the scheduler itself."""
    PREEMPTED = "preempted"
    """For good: the scheduler does not start it again."""
    NODE_FAILED = "node failed"
    NOT_LAUNCHED = "not launched"
    """The scheduler did not start the task's ranks, or the agents of its nodes, or ended them by mistake, in a job that
    runs."""
    CANCELLED = "cancelled"
    EXTERNAL_SIGNAL = "external signal"
    """Not from the scheduler: another process sent the signal."""
    UNKNOWN = "unknown"
    """The scheduler gave no answer."""


def termination_cause(job: CurrentJob | None, restarts: int) -> TerminationCause:
    """Why a job that was ``restarts`` times started again gets SIGTERM, from what the scheduler says at that moment.

    Checked on Slurm 22.05: a requeue, by hand or after a preemption, has raised the count by then; the time limit
    shows as reason; a preempted job has a PreemptTime; a cancelled one is COMPLETING and shows nothing else.
    """
    if job is None:
        return TerminationCause.UNKNOWN
    if job.restarts > restarts:
        return TerminationCause.REQUEUED
    if job.reason == "TimeLimit" or job.state is JobState.TIMEOUT:
        return TerminationCause.TIME_LIMIT
    if job.preempted:
        return TerminationCause.PREEMPTED
    if job.state is JobState.NODE_FAIL:
        return TerminationCause.NODE_FAILED
    if job.state in (JobState.COMPLETING, JobState.CANCELLED):
        return TerminationCause.CANCELLED
    return TerminationCause.EXTERNAL_SIGNAL if job.state is JobState.RUNNING else TerminationCause.UNKNOWN
