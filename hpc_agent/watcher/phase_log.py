"""Log of job phases: one event for each change, so that the log tells each task's way to its end."""

from __future__ import annotations

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.job_phase import JobPhase, JobSnapshot, job_phase
from hpc_agent.logs import EventLog

log = EventLog("job")

EVENTS = {
    JobPhase.NOT_SUBMITTED: "task.queued",
    JobPhase.SUBMIT_INTENDED: "job.submission_intended",
    JobPhase.SUBMIT_UNCLEAR: "job.submission_unclear",
    JobPhase.PENDING: "job.pending",
    JobPhase.REQUEUED: "job.requeued",
    JobPhase.RUNNING: "job.started",
    JobPhase.ENDING: "job.ending",
    JobPhase.MISSING: "job.missing",
    JobPhase.UNCONFIRMED: "job.unconfirmed",
    JobPhase.MAY_RETURN: "job.may_return",
    JobPhase.ENDED: "job.ended",
    JobPhase.LOST: "job.lost",
}


class PhaseLog:
    """Last phase of each job that this process watches. ``key`` names the job, for as long as it is watched."""

    def __init__(self) -> None:
        self.phases: dict[object, JobPhase] = {}

    def forget(self, key: object) -> None:
        self.phases.pop(key, None)

    def note(self, key: object, task: TaskId, snapshot: JobSnapshot, lost_after: float) -> JobPhase:
        """The job's phase; logged if it is another one than before.

        What a process sees first was so before: a daemon that starts does not repeat the story of all jobs.
        """
        phase, before = job_phase(snapshot, lost_after), self.phases.get(key)
        if phase is not before:
            self.phases[key] = phase
            tell = log.debug if before is None else log.info
            tell(EVENTS[phase], task=task, job=_job(snapshot), **_details(snapshot, phase))
        return phase


def _job(snapshot: JobSnapshot) -> str:
    if snapshot.jobs:
        return snapshot.jobs[0].id
    if snapshot.record:
        return snapshot.record.id
    return (snapshot.submitted.job if snapshot.submitted else None) or ""


def _details(snapshot: JobSnapshot, phase: JobPhase) -> dict[str, object]:
    if phase in (JobPhase.PENDING, JobPhase.REQUEUED):
        return {"reason": snapshot.jobs[0].reason}
    if phase is JobPhase.RUNNING:
        return {"nodes": snapshot.jobs[0].nodes, "restart": snapshot.restart_count}
    if phase in (JobPhase.ENDED, JobPhase.MAY_RETURN) and snapshot.record:
        record = snapshot.record
        return {"state": record.raw_state, "exit": record.exit_text, "nodes": record.nodes}
    if phase in (JobPhase.MISSING, JobPhase.LOST):
        return {"seconds": round(snapshot.missing_seconds)}
    return {}
