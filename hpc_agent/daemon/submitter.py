"""One waiting task → one job: read, check, stage, render, submit; each step can be repeated after a death in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

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
from hpc_agent.domain.ids import QueueId
from hpc_agent.domain.job import Accepted, OutcomeUnknown, Refused
from hpc_agent.domain.job import SubmitResult as Answer
from hpc_agent.domain.launch_plan import launch_plan
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.task import Task
from hpc_agent.domain.user_map import UserMap
from hpc_agent.file_records import write_atomic, write_record
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE
from hpc_agent.runs.attempt_records import SubmissionRecord
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers.base import Scheduler, SubmitRequest
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
        self._settings = settings
        self._launch = launch
        self._stages = stages
        self._renderer = renderer
        self._head_starts = head_starts
        self._nodes = BadNodes(RunsFolder(settings.hpc.runs).nodes, clock)
        self._clock = clock

    def submit(
        self,
        attempt: Attempt,
        queue: Queue,
        directory: RunDirectory,
        number: int,
        space: CapacityAllocator,
        *,
        wait: bool,
    ) -> Answer | NoCapacity | LeftToOthers | None:
        """Bring a waiting task to the scheduler; None while its stage is not ready.

        Raises:
            UserMapError, ResourceError, TemplateError, SourceError, EnvironmentBuildError, CorruptTaskError: this task
                can never be submitted as it is.
        """
        # The next pass asks again; others' tasks do not wait for this one.
        task = self._client.tasks.get(attempt.task, budget=ONCE)
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
        job_configs = self._launch.job_configs
        directory.create()
        context = self._launch.context(
            task,
            attempt,
            settings,
            replace(resources, gpus=gpus),
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
        if job_configs:
            job_configs.write(task, directory)
        avoided = self._nodes.avoided()
        request = self._request(settings.template, context, directory, avoided)
        answer = self._hand_over(task, queue, directory, request, number)
        if isinstance(answer, Refused) and avoided:
            log.warning("job.refused_without_avoided_nodes", task=task.id, answer=answer.message)
            request = self._request(settings.template, context, directory, ())
            answer = self._hand_over(task, queue, directory, request, number)
        return answer

    def _request(
        self, template: str, context: JobContext, directory: RunDirectory, avoided: Sequence[str]
    ) -> SubmitRequest:
        """The job's script is written."""
        resources = context.resources
        if avoided:
            resources = replace(resources, exclude=",".join([*filter(None, [resources.exclude]), *avoided]))
        text = self._renderer.render(template, replace(context, resources=resources))
        write_atomic(directory.script, text.encode(), mode=0o700)
        name = context.attempt.job_name
        # A template in the glue's form describes a whole job, with its steps.
        queue = "" if self._renderer.is_glue_template(template) else context.queue_name
        files = directory.script, name, directory.path, directory.job_output
        return SubmitRequest(*files, resources, queue=queue, signal_ahead=context.signal_ahead)

    def _hand_over(
        self, task: Task, queue: Queue, directory: RunDirectory, request: SubmitRequest, number: int
    ) -> Answer | None:
        """The intent is on disk before sbatch is called, so that a death between them shows."""
        before = directory.submission()
        record = SubmissionRecord(
            state="intended",
            at=self._clock.now(),
            queue=queue.id,
            queue_name=queue.name,
            cluster=self._scheduler.cluster(),
            submit_count=number,
        )
        if not self._is_mine(directory, before, record):
            log.info("task.submitted_elsewhere", task=task.id, attempt=directory.attempt.id)
            return None
        answer = self._scheduler.submit(request)
        if isinstance(answer, Accepted):
            record = msgspec.structs.replace(record, state="accepted", job=answer.job)
            directory.write_submission(record)
            log.info("task.submitted", task=task.id, job=answer.job, queue=queue.name, attempt=directory.attempt.id)
        elif isinstance(answer, OutcomeUnknown):
            directory.write_submission(
                msgspec.structs.replace(record, state="uncertain", message=answer.message, doubt=answer.doubt)
            )
            log.warning("task.submission_unclear", task=task.id, attempt=directory.attempt.id, answer=answer.message)
        elif before is not None:
            directory.write_submission(before)
            directory.drop_try(number)
        else:
            directory.drop_submission()
        return answer

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


@dataclass(frozen=True)
class NoCapacity:
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
