"""Staging in a small job of its own, for sites whose login nodes are not for builds (``hpc.envs.build_on: job``)."""

from __future__ import annotations

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.login_staging import PREPARING
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, LimitReached, OutcomeUnknown, Refused, UnclearAnswer
from hpc_agent.domain.outcome import FailureClass, classify_exit, lost
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.resources import Resources
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

TEMPLATE = "stage.sbatch.j2"
_ASK_EVERY_S = 5.0
_LOOK_UP_S = 60.0
"""So long after an unclear answer of sbatch the job is looked for; then another is submitted. The two cost little: the
lease of the cache lets one of them build."""
_PAUSE_S = 30.0
"""Between an answer that is no job and the next submission of any."""
_RESULT_S = 10.0
"""So long after its job the result may take to reach this node."""
_TRIES = 3
"""Jobs that the site loses or ends."""


class StagingJobs:
    """What must outlive this process stands in the run directory: ``stage-job.json``, then ``stage.json`` or
    ``stage.failed``."""

    def __init__(
        self, scheduler: Scheduler, settings: AllSettings, launch: JobLaunchConfig, renderer: Renderer, clock: Clock
    ) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._launch = launch
        self._renderer = renderer
        self._clock = clock
        self._runs = RunsFolder(settings.hpc.runs)
        self._asked: dict[Attempt, float] = {}
        self._live: frozenset[str] = frozenset()
        self._live_at = float("-inf")
        self._paused_until = float("-inf")

    def get(self, attempt: Attempt, task: Task, queue: Queue, *, wait: bool) -> StagedTask | None:
        """As ``stage.Stages``; never waits: the next pass looks again."""
        directory = self._runs.of(attempt)
        names = directory.names()
        if directory.stage.name in names:
            return read_record(directory.stage, StagedTask)
        if directory.stage_failure.name in names:
            raise EnvironmentBuildError(directory.stage_failure.read_text(encoding="utf-8"))
        job = directory.stage_job()
        if job is None:
            self._submit(task, queue, directory, 1)
        elif self._is_turn_of(attempt):
            again = self._check(directory, job) if job.job else self._look_up(directory, job)
            if again:
                self._submit(task, queue, directory, again)
        return None

    def says(self, attempt: Attempt) -> str:
        job = self._runs.of(attempt).stage_job()
        return f"sbatch failed for the job that prepares it: {job.error}" if job and job.error else PREPARING

    def drop(self, attempt: Attempt) -> None:
        """Its task left the queue: nobody waits for what a job of ours stages."""
        name = _name(attempt)
        # By its name: its number may stand for another job by now.
        jobs = [job.id for job in self._scheduler.live_jobs() if job.name == name]
        if jobs:
            log.info("cancelling a staging job", task=attempt.task, jobs=",".join(jobs))
            self._scheduler.cancel(jobs)

    def close(self) -> None:
        """The jobs go on; their results lie in the run directories."""

    def _is_turn_of(self, attempt: Attempt) -> bool:
        now = self._clock.monotonic()
        if now - self._asked.get(attempt, float("-inf")) < _ASK_EVERY_S:
            return False
        self._asked[attempt] = now
        return True

    def _submit(self, task: Task, queue: Queue, directory: RunDirectory, tries: int) -> None:
        if self._clock.monotonic() < self._paused_until:
            return
        name = _name(directory.attempt)
        request = self._request(task, directory, name)
        record = StagingJobRecord(at=self._clock.now(), queue=queue.id, cluster=self._scheduler.cluster(), tries=tries)
        answer = self._scheduler.submit(request)
        if isinstance(answer, Refused):
            raise EnvironmentBuildError(f"the scheduler refused the staging job: {answer.message}")
        if isinstance(answer, Accepted):
            directory.write_stage_job(msgspec.structs.replace(record, job=answer.job))
            log.info("staging job", task=task.id, job=answer.job, tries=tries)
            return
        log.warning("no staging job yet", task=task.id, said=answer.message)
        failed = isinstance(answer, OutcomeUnknown) and answer.doubt is UnclearAnswer.UNKNOWN_ERROR
        if isinstance(answer, LimitReached) or answer.doubt is UnclearAnswer.NO_ANSWER:
            self._paused_until = self._clock.monotonic() + _PAUSE_S
        if isinstance(answer, OutcomeUnknown):
            directory.write_stage_job(msgspec.structs.replace(record, error=answer.message if failed else ""))

    def _request(self, task: Task, directory: RunDirectory, name: str) -> SubmitRequest:
        directory.create()
        # What it builds may be a stranger's code: it sees no more than the task's own job will.
        if job_configs := self._launch.job_configs:
            job_configs.write(task, directory)
        resources = self._settings.hpc.envs.resources.over(self._settings.hpc.resources.over(Resources()))
        context = JobContext(
            task=task,
            attempt=directory.attempt,
            queue_name="",
            resources=resources,
            site=self._settings.hpc.slurm,
            run_dir=directory.path,
            output=directory.path / "stage.out",
            config_file=directory.owner_config if job_configs else self._launch.config_file,
            agent=self._launch.agent,
            job_name=name,
        )
        script = directory.path / "stage.sbatch"
        write_atomic(script, self._renderer.render(TEMPLATE, context).encode(), mode=0o700)
        return SubmitRequest(script, name, directory.path, context.output, resources)

    def _look_up(self, directory: RunDirectory, record: StagingJobRecord) -> int:
        """Search for a job that may or may not exist; the number of the next try, once it is time for one.

        Raises:
            EnvironmentBuildError: sbatch had failed, and no job came of it.
        """
        job = self._scheduler.find(_name(directory.attempt), record.at)
        if job is not None:
            # What sbatch said is refuted: the task's message shall not go on saying it.
            directory.write_stage_job(msgspec.structs.replace(record, job=job, error=""))
            return 0
        now = self._clock.now()
        if record.error and record.looked_at is None:
            directory.write_stage_job(msgspec.structs.replace(record, looked_at=now))
            return 0
        since = record.looked_at if record.error and record.looked_at else record.at
        if abs((now - since).total_seconds()) <= _LOOK_UP_S:
            return 0
        if record.error:
            raise EnvironmentBuildError(f"the scheduler refused the staging job: {record.error}")
        return record.tries

    def _check(self, directory: RunDirectory, record: StagingJobRecord) -> int:
        """Whether the job lives; the number of the next try where the site lost or ended it.

        Raises:
            EnvironmentBuildError: it ended, and left no result; it may have been killed by its limits.
        """
        job = JobId(record.job)
        if self._lives(record):
            if record.gone_since is not None:
                directory.write_stage_job(msgspec.structs.replace(record, gone_since=None))
            return 0
        found = self._scheduler.records({job: record.at}).get(job)
        if found is not None and not found.state.is_final:
            return 0
        now = self._clock.now()
        if record.gone_since is None:
            directory.write_stage_job(msgspec.structs.replace(record, gone_since=now))
            return 0
        missing_seconds = abs((now - record.gone_since).total_seconds())
        if missing_seconds < (self._settings.hpc.slurm.lost_after if found is None else _RESULT_S):
            return 0
        return self._after(record, found, missing_seconds)

    def _after(self, record: StagingJobRecord, found: JobRecord | None, missing_seconds: float) -> int:
        outcome = classify_exit(found) if found else lost(record.job, missing_seconds)
        if (found is None or outcome.failure_class is FailureClass.INFRASTRUCTURE) and record.tries < _TRIES:
            log.warning("staging job is tried again", job=record.job, why=outcome.reason)
            return record.tries + 1
        raise EnvironmentBuildError(f"the job that stages the task left no result: {outcome.reason}")

    def _lives(self, record: StagingJobRecord) -> bool:
        """One question for all that stage."""
        now = self._clock.monotonic()
        if now - self._live_at >= _ASK_EVERY_S:
            self._live = frozenset(job.id for job in self._scheduler.live_jobs())
            self._live_at = now
        since = self._clock.now() - record.at
        return record.job in self._live or since.total_seconds() < now - self._live_at


def _name(attempt: Attempt) -> str:
    return attempt.job_name.replace("clearml_task_", "clearml_stage_")
