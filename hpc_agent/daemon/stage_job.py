"""Staging in a small job of its own, for sites whose login nodes are not for builds (``hpc.envs.build_on: job``)."""

from __future__ import annotations

from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.launch import Launch
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, Later, Refused
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.task import Task
from hpc_agent.domain.verdict import explain
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.files import ensure_directory, read_record, write_atomic
from hpc_agent.logs import Events
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.runs.records import Submission
from hpc_agent.schedulers.base import Scheduler, SubmitRequest
from hpc_agent.staging import Staged
from hpc_agent.submission.render import JobContext, Renderer

log = Events("stage")

TEMPLATE = "stage.sbatch.j2"
_ASK_EVERY_S = 5.0


class StageJobs:
    """Its memory is the run directory: ``stage-job.json``, then ``stage.json`` or ``stage.failed``."""

    def __init__(
        self, scheduler: Scheduler, settings: AllSettings, launch: Launch, renderer: Renderer, clock: Clock
    ) -> None:
        self._scheduler = scheduler
        self._settings = settings
        self._launch = launch
        self._renderer = renderer
        self._clock = clock
        self._runs = RunsFolder(settings.hpc.runs)
        self._asked: dict[Attempt, float] = {}
        self._ended: set[Attempt] = set()

    def get(self, attempt: Attempt, task: Task, *, wait: bool) -> Staged | None:
        """As ``stage.Stages``; never waits: the next pass looks again."""
        directory = self._runs.of(attempt)
        names = directory.names()
        if directory.stage.name in names:
            return read_record(directory.stage, Staged)
        if directory.stage_failure.name in names:
            raise EnvironmentBuildError(directory.stage_failure.read_text())
        job = directory.stage_job()
        if job is None:
            self._submit(attempt, task, directory)
        else:
            self._check(attempt, job)
        return None

    def close(self) -> None:
        """The jobs go on; their results lie in the run directories."""

    def _submit(self, attempt: Attempt, task: Task, directory: RunDirectory) -> None:
        resources = self._settings.hpc.envs.resources.over(self._settings.hpc.resources.over(Resources()))
        name = attempt.job_name.replace("clearml_task_", "clearml_stage_")
        context = JobContext(
            task=task,
            attempt=attempt,
            queue_name="",
            resources=resources,
            site=self._settings.hpc.slurm,
            run_dir=directory.path,
            output=directory.path / "stage.out",
            config_file=self._launch.config_file,
            agent=self._launch.agent,
            job_name=name,
        )
        script = ensure_directory(directory.path) / "stage.sbatch"
        write_atomic(script, self._renderer.render(TEMPLATE, context).encode(), mode=0o700)
        request = SubmitRequest(script, name, directory.path, context.output, resources)
        begun = self._clock.now()
        answer = self._scheduler.submit(request)
        if isinstance(answer, Refused):
            raise EnvironmentBuildError(f"the scheduler refused the staging job: {answer.message}")
        if isinstance(answer, Later):
            return
        # An uncertain one may or may not exist. A second costs little: the lease of the cache lets one of them build.
        job = answer.job if isinstance(answer, Accepted) else self._scheduler.find(name, begun)
        if job is not None:
            directory.write_stage_job(Submission(state="accepted", at=begun, queue="", job=job))
            log.info("staging job", task=task.id, job=job)

    def _check(self, attempt: Attempt, job: Submission) -> None:
        """A job that ended without a result twice seen is a failure; it may have been killed by its limits."""
        now = self._clock.monotonic()
        if now - self._asked.get(attempt, float("-inf")) < _ASK_EVERY_S:
            return
        self._asked[attempt] = now
        record = self._scheduler.records({JobId(job.job): job.at}).get(JobId(job.job))
        if record is None:
            return
        if attempt in self._ended:
            raise EnvironmentBuildError(f"the job that stages the task left no result: {explain(record).reason}")
        # Its last file may not have reached this node yet.
        self._ended.add(attempt)
