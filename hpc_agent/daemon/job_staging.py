"""Staging in a small job of its own, for sites whose login nodes are not for builds (``hpc.envs.build_on: job``)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig, rules
from hpc_agent.daemon.login_staging import PREPARING
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, LimitReached, OutcomeUnknown, Refused, UnclearAnswer
from hpc_agent.domain.job_phase import JobPhase, JobSnapshot, SubmissionView, job_phase
from hpc_agent.domain.outcome import FailureClass, JobOutcome, classify_exit, lost
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.snapshot import AttemptPolicy
from hpc_agent.domain.task import Task
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.file_records import read_record, write_atomic
from hpc_agent.logs import EventLog
from hpc_agent.runs.attempt_records import StagingJobRecord
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers.base import Scheduler, SubmitRequest
from hpc_agent.staging import StagedTask
from hpc_agent.submission.render import JobContext, Renderer

log = EventLog("stage")

_PAUSE_S = 30.0
"""Seconds between an answer that gives no job and the next submission of any."""
_RESULT_S = 10.0
"""Seconds after its job that the result may take to reach this node."""
_MAX_SUBMISSIONS = 3
"""Staging jobs that may be lost, or ended by the infrastructure."""


class SubmitStagingJob(msgspec.Struct, frozen=True):
    """Submit a staging job, as try number ``number``."""

    number: int


class AdoptStagingJob(msgspec.Struct, frozen=True):
    job: JobId


class FindStagingJob(msgspec.Struct, frozen=True):
    """Search for a job by its name; ``give_up`` if none is found now."""

    give_up: bool


class FailStaging(msgspec.Struct, frozen=True):
    reason: str


StagingAction = SubmitStagingJob | AdoptStagingJob | FindStagingJob | FailStaging


def decide(snapshot: JobSnapshot, now: datetime, policy: AttemptPolicy) -> StagingAction | None:
    """What is due for a staging job that was submitted and has no result yet; None while waiting is right. Pure.

    A second job costs little: the lease of the cache lets one of them build.
    """
    submitted, phase = snapshot.submitted, job_phase(snapshot, policy.lost_after)
    assert submitted is not None
    if snapshot.jobs:
        return AdoptStagingJob(snapshot.jobs[0].id) if submitted.is_unclear else None
    if submitted.is_unclear:
        return FindStagingJob(submitted.is_search_over(now, policy.look_up_seconds))
    if phase is JobPhase.LOST:
        return _after(submitted, lost(submitted.job or "?", snapshot.missing_seconds), may_repeat=True)
    if phase is not JobPhase.ENDED or snapshot.record is None or snapshot.missing_seconds < _RESULT_S:
        return None
    outcome = classify_exit(snapshot.record)
    return _after(submitted, outcome, may_repeat=outcome.failure_class is FailureClass.INFRASTRUCTURE)


def _after(submitted: SubmissionView, outcome: JobOutcome, *, may_repeat: bool) -> StagingAction:
    if may_repeat and submitted.submit_count < _MAX_SUBMISSIONS:
        return SubmitStagingJob(submitted.submit_count + 1)
    return FailStaging(f"the job that stages the task left no result: {outcome.reason}")


class StagingJobs:
    """Staging jobs of one daemon. What must outlive the process is in the run directory: ``stage-job.json``, then
    ``stage.json`` or ``stage.failed``."""

    def __init__(
        self, scheduler: Scheduler, settings: AllSettings, launch: JobLaunchConfig, renderer: Renderer, clock: Clock
    ) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._launch = launch
        self._renderer = renderer
        self._clock = clock
        self._runs = RunsFolder(settings.hpc.runs)
        self._snapshots: Mapping[Attempt, JobSnapshot] = {}
        self._paused_until = float("-inf")

    def update(self, jobs: Mapping[Attempt, JobSnapshot]) -> None:
        self._snapshots = jobs

    def get(self, attempt: Attempt, task: Task, queue: Queue, *, wait: bool) -> StagedTask | None:
        """As ``StagingBackend``; never waits: the next pass asks again."""
        directory = self._runs.of(attempt)
        names = directory.names()
        if directory.stage.name in names:
            return read_record(directory.stage, StagedTask)
        if directory.stage_failure.name in names:
            raise EnvironmentBuildError(directory.stage_failure.read_text(encoding="utf-8"))
        record, snapshot = directory.stage_job(), self._snapshots.get(attempt)
        if record is None:
            self._submit(task, queue, directory, 1)
        elif snapshot is not None:
            self._act_on(snapshot, task, queue, directory, record)
        return None

    def _act_on(
        self, snapshot: JobSnapshot, task: Task, queue: Queue, directory: RunDirectory, record: StagingJobRecord
    ) -> None:
        match decide(snapshot, self._clock.now(), rules(self._settings.hpc, queue.name)):
            case SubmitStagingJob(number):
                log.warning("staging.repeated", task=task.id, job=record.job, number=number)
                self._submit(task, queue, directory, number)
            case AdoptStagingJob(job):
                self._adopt(directory, record, job)
            case FindStagingJob(give_up):
                self._find(task, queue, directory, record, give_up=give_up)
            case FailStaging(reason):
                raise EnvironmentBuildError(reason)

    def _adopt(self, directory: RunDirectory, record: StagingJobRecord, job: JobId) -> None:
        # The error of sbatch is refuted: the task's message must not show it any longer.
        directory.write_stage_job(msgspec.structs.replace(record, job=job, error=""))

    def _find(
        self, task: Task, queue: Queue, directory: RunDirectory, record: StagingJobRecord, *, give_up: bool
    ) -> None:
        """Search for a job that may not exist.

        Raises:
            EnvironmentBuildError: sbatch had failed, and no job came of it.
        """
        job = self._scheduler.find(directory.attempt.staging_job_name, record.at)
        if job is not None:
            self._adopt(directory, record, job)
        elif record.looked_at is None:
            directory.write_stage_job(msgspec.structs.replace(record, looked_at=self._clock.now()))
        elif give_up and record.error:
            raise EnvironmentBuildError(f"the scheduler refused the staging job: {record.error}")
        elif give_up:
            self._submit(task, queue, directory, record.submit_count)

    def status_message(self, attempt: Attempt) -> str:
        job = self._runs.of(attempt).stage_job()
        return f"sbatch failed for the job that prepares it: {job.error}" if job and job.error else PREPARING

    def drop(self, attempt: Attempt) -> None:
        """Cancel the job that stages for an attempt that is over; by its name, because ids are used again."""
        jobs = [job.id for job in self._snapshots.get(attempt, JobSnapshot()).jobs]
        if jobs:
            log.info("staging.cancelled", task=attempt.task, jobs=",".join(jobs))
            self._scheduler.cancel(jobs)

    def close(self) -> None:
        """The jobs go on; their results lie in the run directories."""

    def _submit(self, task: Task, queue: Queue, directory: RunDirectory, submit_count: int) -> None:
        if self._clock.monotonic() < self._paused_until:
            return
        name = directory.attempt.staging_job_name
        request = self._request(task, directory, name)
        record = StagingJobRecord(
            at=self._clock.now(), queue=queue.id, cluster=self._scheduler.cluster(), submit_count=submit_count
        )
        answer = self._scheduler.submit(request)
        if isinstance(answer, Refused):
            raise EnvironmentBuildError(f"the scheduler refused the staging job: {answer.message}")
        if isinstance(answer, Accepted):
            directory.write_stage_job(msgspec.structs.replace(record, job=answer.job))
            log.info("staging.submitted", task=task.id, job=answer.job, tries=submit_count)
            return
        log.warning("staging.not_submitted", task=task.id, answer=answer.message)
        failed = isinstance(answer, OutcomeUnknown) and answer.doubt is UnclearAnswer.UNKNOWN_ERROR
        if isinstance(answer, LimitReached) or answer.doubt is UnclearAnswer.NO_ANSWER:
            self._paused_until = self._clock.monotonic() + _PAUSE_S
        if isinstance(answer, OutcomeUnknown):
            directory.write_stage_job(msgspec.structs.replace(record, error=answer.message if failed else ""))

    def _request(self, task: Task, directory: RunDirectory, name: str) -> SubmitRequest:
        directory.create()
        # What it builds may be a stranger's code: it sees no more than the task's own job will.
        if job_configs := self._launch.job_configs:
            job_configs.write([(task, directory)])
        resources = self._settings.hpc.envs.resources.over(self._settings.hpc.resources.over(Resources()))
        context = JobContext(
            task=task,
            attempt=directory.attempt,
            queue_name="",
            resources=resources,
            run_dir=directory.path,
            output=directory.path / "stage.out",
            config_file=directory.owner_config if job_configs else self._launch.config_file,
            agent=self._launch.agent,
            job_name=name,
        )
        script = directory.path / "stage.sbatch"
        write_atomic(
            script, self._renderer.render(self._renderer.language.staging_template, context).encode(), mode=0o700
        )
        return SubmitRequest(script, name, directory.path, context.output, resources)
