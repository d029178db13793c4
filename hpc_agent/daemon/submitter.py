"""One waiting task → one job: read, check, stage, render, submit; each step can be repeated after a death in it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from hpc_agent.access import user_name
from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.glue_jobs import glue_facts, own_resources
from hpc_agent.daemon.head_starts import HeadStarts, LeftToOthers
from hpc_agent.daemon.job_launch import JobLaunchConfig, JobPlace
from hpc_agent.daemon.login_staging import StagingBackend
from hpc_agent.daemon.nodes import BadNodes
from hpc_agent.daemon.options import gpu_range
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.capacity import Capacity, GpuRange
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.job import Accepted, OutcomeUnknown, Refused
from hpc_agent.domain.job import SubmitResult as Answer
from hpc_agent.domain.launch_plan import launch_plan
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.resources import Resources
from hpc_agent.domain.task import Task
from hpc_agent.domain.user_map import UserMap
from hpc_agent.errors import ApiError
from hpc_agent.file_batches import FileWrite, write_together
from hpc_agent.file_records import Durability, write_atomic, write_record
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE
from hpc_agent.runs.attempt_records import SubmissionRecord
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers.base import ArrayScheduler, Scheduler, SubmitRequest
from hpc_agent.submission.render import JobContext, Renderer

log = EventLog("submit")

TRY_TIMEOUT_S = 300.0
"""A daemon that reserved a try and has not submitted by then is dead: sbatch takes 150 s at most."""


class Submitter:
    """Submitter of tasks as jobs. Without ``stages`` the jobs build their environments themselves."""

    def __init__(
        self,
        client: Client,
        scheduler: Scheduler,
        settings: AllSettings,
        launch: JobLaunchConfig,
        stages: StagingBackend | None,
        renderer: Renderer,
        head_starts: HeadStarts,
        clock: Clock,
    ) -> None:
        self._client = client
        self._scheduler = scheduler
        self._arrays = scheduler if isinstance(scheduler, ArrayScheduler) else None
        self._settings = settings
        self._launch = launch
        self._stages = stages
        self._renderer = renderer
        self._head_starts = head_starts
        self._nodes = BadNodes(RunsFolder(settings.hpc.runs).nodes, clock)
        self._clock = clock
        self._tasks: dict[TaskId, Task] = {}
        """Read ahead."""

    def read_ahead(self, attempts: Sequence[Attempt], *, one_by_one: bool) -> None:
        """Read tasks that will be prepared next, in one request. What an answer lacks is asked for one by one.

        Args:
            one_by_one: they will be handed over so: what their jobs need of the server is asked for together now.

        Raises:
            ServerUnreachableError: no usable answer.
        """
        self._tasks = {}
        if len(attempts) > 1:
            with suppress(ApiError):
                self._tasks = self._client.tasks.get_many([attempt.task for attempt in attempts], budget=ONCE)
        if one_by_one and self._launch.job_configs:
            self._launch.job_configs.read_ahead(attempts)

    def prepare(
        self,
        attempt: Attempt,
        queue: Queue,
        directory: RunDirectory,
        number: int,
        space: CapacityAllocator,
        *,
        wait: bool,
    ) -> PreparedJob | NoCapacity | LeftToOthers | None:
        """Bring a waiting task to where only the scheduler is missing; None while its stage is not ready.

        Raises:
            UserMapError, ResourceError, TemplateError, SourceError, EnvironmentBuildError, CorruptTaskError: this task
                can never be submitted as it is.
        """
        # The next pass asks again; others' tasks do not wait for this one.
        task = self._tasks.pop(attempt.task, None) or self._client.tasks.get(attempt.task, budget=ONCE)
        if self._settings.hpc.user_map:
            linux_user = UserMap(self._settings.hpc.user_map).linux_user(task.user)
            if linux_user != user_name():
                # Its owner was not known when the queue was read: it must not run as the main daemon's user.
                return LeftToOthers(f"left to the daemon of the Linux user {linux_user}", 0.0)
        settings = self._settings.hpc.queue(queue.name)
        is_glue = self._renderer.is_glue_template(settings.template)
        policy = settings.policy(queue.name, self._settings.hpc.resources)
        resources = own_resources(settings, policy, task) if is_glue else policy.resources(task.properties)
        # A wrong launcher is known at once; the job asks again, with the GPUs that it sees.
        launch_plan(task.properties, self._settings.hpc.launch_defaults(queue.name), nodes=resources.nodes, gpus=0)
        gpus = space.take(queue.id, gpu_range(self._launch.options, queue.name, resources.gpus, task.properties))
        if isinstance(gpus, NoCapacity):
            return gpus
        directory.create()
        context = self._launch.context(
            task,
            attempt,
            settings,
            msgspec.structs.replace(resources, gpus=gpus),
            JobPlace(queue.name, directory),
            staged=self._stages is not None,
        )
        if is_glue:
            context = replace(context, facts=glue_facts(self._client, task, queue, self._settings, self._launch.naming))
        # Rendered before it is staged: a broken template is known at once.
        text = self._renderer.render(settings.template, context)
        if settings.head_start:
            write_atomic(directory.script, text.encode(), mode=0o700)
            left = self._head_starts.left_to_others(attempt, queue.name, context.resources, directory)
            if left is not None:
                return left
        if self._stages is not None:
            staged = self._stages.get(attempt, task, queue, wait=wait)
            if staged is None:
                return None
            write_record(directory.stage, staged)
        avoided = tuple(self._nodes.avoided())
        # A template in the glue's form describes a whole job, with its steps.
        pilot_queue = "" if is_glue else queue.name
        return PreparedJob(task, queue, directory, settings.template, context, text, number, avoided, pilot_queue)

    def array_size(self) -> int:
        """Jobs that may go to the scheduler together; less than 2: none.

        Raises:
            SchedulerUnavailableError: no usable answer.
        """
        return self._arrays.array_size() if self._arrays else 0

    def array_key(self, job: PreparedJob) -> object | None:
        """Jobs of one queue with equal keys may go together; None: this one goes alone."""
        if job.number > 1 or self._arrays is None:
            return None
        return self._arrays.array_key(self._text(job, job.avoided))

    def hand_over(self, job: PreparedJob) -> Answer | None:
        """Submit it; None if another daemon does. May be called in several threads, for a job each.

        Raises:
            InputError: the server gives no credentials for the job.
            ServerUnreachableError: no usable answer.
        """
        if self._launch.job_configs:
            self._launch.job_configs.write([(job.task, job.directory)])
        answer = self._submit(job, job.avoided)
        if isinstance(answer, Refused) and job.avoided:
            log.warning("job.refused_without_avoided_nodes", task=job.task.id, answer=answer.message)
            answer = self._submit(job, ())
        return answer

    def hand_over_together(self, jobs: Sequence[PreparedJob]) -> list[Answer | None]:
        """Submit jobs with equal keys at once; the answer of each, which is one for all that were submitted.

        Raises:
            InputError, ServerUnreachableError: as ``hand_over``; none was submitted.
            OSError: a record was not written; what was to be submitted is looked up.
        """
        assert self._arrays is not None
        if self._launch.job_configs:
            self._launch.job_configs.write([(job.task, job.directory) for job in jobs])
        intents = self._intend_together(jobs)
        ours = [(job, intent) for job, intent in zip(jobs, intents, strict=True) if intent is not None]
        answers: list[Answer] = []
        if len(ours) == 1:
            answers = [self._scheduler.submit(ours[0][1].request)]
        elif ours:
            answers = list(self._arrays.submit_array([intent.request for _, intent in ours]))
        self._note(ours, answers)
        found = iter(answers)
        return [next(found) if intent is not None else None for intent in intents]

    def _intend_together(self, jobs: Sequence[PreparedJob]) -> list[_Intent | None]:
        """As ``_intend``, for first submissions. Their scripts are read when they start, and are on disk too."""
        scripts = [FileWrite(job.directory.script, self._text(job, job.avoided).encode(), mode=0o700) for job in jobs]
        records = [self._intended(job) for job in jobs]
        firsts = [
            job.directory.submission_write(record, is_first=True) for job, record in zip(jobs, records, strict=True)
        ]
        are_ours = write_together([*scripts, *firsts])[len(jobs) :]
        found: list[_Intent | None] = []
        for job, record, is_ours in zip(jobs, records, are_ours, strict=True):
            found.append(_Intent(self._request(job, job.avoided), None, record) if is_ours else None)
            if not is_ours:
                log.info("task.submitted_elsewhere", task=job.task.id, attempt=job.directory.attempt.id)
        return found

    def _request(self, job: PreparedJob, avoided: Sequence[str]) -> SubmitRequest:
        directory = job.directory
        name, resources = job.context.attempt.job_name, self._resources(job, avoided)
        files = directory.script, name, directory.path, directory.job_output
        return SubmitRequest(*files, resources, queue=job.pilot_queue, signal_ahead=job.context.signal_ahead)

    def _resources(self, job: PreparedJob, avoided: Sequence[str]) -> Resources:
        resources = job.context.resources
        if not avoided:
            return resources
        return msgspec.structs.replace(resources, exclude=",".join([*filter(None, [resources.exclude]), *avoided]))

    def _text(self, job: PreparedJob, avoided: Sequence[str]) -> str:
        if not avoided:
            return job.text
        return self._renderer.render(job.template, replace(job.context, resources=self._resources(job, avoided)))

    def _submit(self, job: PreparedJob, avoided: Sequence[str]) -> Answer | None:
        intent = self._intend(job, avoided)
        if intent is None:
            return None
        answer = self._scheduler.submit(intent.request)
        self._note([(job, intent)], [answer])
        return answer

    def _intend(self, job: PreparedJob, avoided: Sequence[str]) -> _Intent | None:
        """The intent is on disk before sbatch is called, so that a death between them shows; None if another daemon
        submits this job."""
        script = job.directory.script
        # The scheduler keeps a copy of the script, and each submission writes it again.
        write_atomic(script, self._text(job, avoided).encode(), mode=0o700, durability=Durability.NONE)
        before, record = job.directory.submission(), self._intended(job)
        if not self._is_mine(job.directory, before, record):
            log.info("task.submitted_elsewhere", task=job.task.id, attempt=job.directory.attempt.id)
            return None
        return _Intent(self._request(job, avoided), before, record)

    def _intended(self, job: PreparedJob) -> SubmissionRecord:
        return SubmissionRecord(
            state="intended",
            at=self._clock.now(),
            queue=job.queue.id,
            queue_name=job.queue.name,
            cluster=self._scheduler.cluster(),
            submit_count=job.number,
        )

    def _note(self, submitted: Sequence[tuple[PreparedJob, _Intent]], answers: Sequence[Answer]) -> None:
        """Write what the scheduler answered for each, which is one kind of answer for all."""
        records = [(job, _answered(intent, answer)) for (job, intent), answer in zip(submitted, answers, strict=True)]
        writes = [job.directory.submission_write(record) for job, record in records if record is not None]
        # After a power cut the intent is there, and the job is found by its name.
        all_accepted = all(isinstance(answer, Accepted) for answer in answers)
        write_together(writes, Durability.EITHER if all_accepted else Durability.NEW)
        for (job, intent), answer in zip(submitted, answers, strict=True):
            if not isinstance(answer, (Accepted, OutcomeUnknown)):
                self._take_back(job, intent)
            _log_answer(job, answer)

    def _take_back(self, job: PreparedJob, intent: _Intent) -> None:
        """There is no job of this submission: the task may be submitted again with its number."""
        if intent.before is None:
            job.directory.drop_submission()
        else:
            job.directory.drop_try(job.number)

    def _is_mine(self, directory: RunDirectory, before: SubmissionRecord | None, record: SubmissionRecord) -> bool:
        """Whether this try is ours: of several daemons that see the same entry exactly one submits it."""
        if before is None:
            return record.submit_count == 1 and directory.first_submission(record)
        if before.submit_count != record.submit_count - 1:
            return False
        first = directory.first_try(record)
        if first is not record and abs((record.at - first.at).total_seconds()) < TRY_TIMEOUT_S:
            return False
        directory.write_submission(record)
        return True


class PreparedJob(msgspec.Struct, frozen=True):
    """A task that is checked, staged and has its resources; ``number``: that of the submission."""

    task: Task
    queue: Queue
    directory: RunDirectory
    template: str
    context: JobContext
    text: str
    """Of its script."""
    number: int
    avoided: tuple[str, ...]
    """Nodes that it must not run on, where the scheduler lets it."""
    pilot_queue: str = ""
    """Name of the queue whose pilots may run it; empty: it must be a job of its own."""


class _Intent(msgspec.Struct, frozen=True):
    """A submission whose intent is on disk. ``before``: the record of the one before it."""

    request: SubmitRequest
    before: SubmissionRecord | None
    record: SubmissionRecord


def _answered(intent: _Intent, answer: Answer) -> SubmissionRecord | None:
    """What is on record after the answer; None: nothing, as before the intent."""
    if isinstance(answer, Accepted):
        return msgspec.structs.replace(intent.record, state="accepted", job=answer.job)
    if isinstance(answer, OutcomeUnknown):
        return msgspec.structs.replace(intent.record, state="uncertain", message=answer.message, doubt=answer.doubt)
    return intent.before


def _log_answer(job: PreparedJob, answer: Answer) -> None:
    task, attempt = job.task.id, job.directory.attempt.id
    if isinstance(answer, Accepted):
        log.info("task.submitted", task=task, job=answer.job, queue=job.queue.name, attempt=attempt)
    elif isinstance(answer, OutcomeUnknown):
        log.warning("task.submission_unclear", task=task, attempt=attempt, answer=answer.message)


class NoCapacity(msgspec.Struct, frozen=True):
    """The task waits in its queue until others have ended."""

    message: str


class CapacityAllocator:
    """Tasks of one queue keep their order; a queue whose next task does not fit lets others by."""

    def __init__(self, room: Capacity) -> None:
        self._room = room
        self._blocked: set[QueueId] = set()

    @property
    def full(self) -> bool:
        return self._room.full

    def go_together(self) -> None:
        """The last job that was taken in goes with others, in one submission."""
        self._room = self._room.with_one_more()

    def take(self, queue: QueueId, wanted: GpuRange) -> int | NoCapacity:
        """The GPUs that a job of this queue gets, or why it has to wait for a later pass."""
        if queue in self._blocked:
            return NoCapacity("Waiting behind another task of its queue")
        granted = self._room.grant(wanted)
        if granted is None:
            self._blocked.add(queue)
            return NoCapacity(f"Waiting for {wanted.least} GPUs, {self._room.gpus} are free")
        self._room = self._room.without(granted)
        return granted
