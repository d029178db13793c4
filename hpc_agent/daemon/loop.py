"""The daemon: the same pass again and again, and a sign of life."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.act import Actor
from hpc_agent.daemon.activity import Activity
from hpc_agent.daemon.cached_staging import CachedStaging
from hpc_agent.daemon.capacity_allocator import CapacityAllocator, NoCapacity
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.job_staging import StagingJobs
from hpc_agent.daemon.login_staging import LoginStaging, StagingBackend
from hpc_agent.daemon.notifier import Notifier
from hpc_agent.daemon.observe import ClusterObserver, ClusterSnapshot
from hpc_agent.daemon.open_attempts import OpenAttemptIndex
from hpc_agent.daemon.policy import rules
from hpc_agent.daemon.prune import Pruner
from hpc_agent.daemon.queue_leases import QueueLeases
from hpc_agent.daemon.submitter import Submitter
from hpc_agent.daemon.task_errors import TaskErrorReporter
from hpc_agent.domain import actions as due
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.decide import decide, explain_doubt
from hpc_agent.domain.fair_choice import QueueCandidates, choose, rotated
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.domain.job import LimitReached, OutcomeUnknown, Refused, UnclearAnswer
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.schedule import Schedule
from hpc_agent.domain.snapshot import AttemptPolicy
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import (
    ApiError,
    ContainerError,
    EnvironmentBuildError,
    HpcAgentError,
    InputError,
    ResourceError,
    SchedulerUnavailableError,
    ServerUnreachableError,
    SourceError,
    TemplateError,
)
from hpc_agent.logs import EventLog
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.staging import TaskStager
from hpc_agent.submission.render import Renderer
from hpc_agent.telemetry.usage import GpuReader, UsageReader

log = EventLog("daemon")

REPORT_INTERVAL_S = 30.0
NOTIFY_S = 15.0
"""How long a single pass stays for its notifications."""
NOTIFY_AT_STOP_S = 2.0
LATER_S = 30.0
"""How long a queue's tasks wait after the scheduler said that a limit is met, or gave no answer."""
_FAILURES = 2
"""So many calls without an answer in one pass, and it is not the task but the server or the scheduler."""
_LONGEST_BACKOFF_S = 120.0
_USERS_FAULT = (ResourceError, TemplateError, SourceError, EnvironmentBuildError, ContainerError, InputError)
"""Errors that make a task impossible as it is: it is failed with the sentence, and others go on."""


@dataclass(frozen=True)
class LoopOptions:
    """The flags of ``daemon``. ``queues`` in order of priority."""

    queues: tuple[QueueId, ...]
    worker: WorkerId
    fair: bool = False
    schedule: Schedule = field(default_factory=Schedule)
    tags: tuple[str, ...] = ()
    """Of our own reports."""
    gpus: tuple[str, ...] | None = None
    """Whose use we report; None: of all GPUs of this machine."""


class Daemon:
    """``run`` until told to stop; jobs go on without it."""

    def __init__(
        self,
        client: Client,
        scheduler: Scheduler,
        settings: AllSettings,
        launch: JobLaunchConfig,
        options: LoopOptions,
        clock: Clock,
    ) -> None:
        runs = RunsFolder(settings.hpc.runs)
        self._client = client
        self._scheduler = scheduler
        self._settings = settings
        self._options = options
        self._clock = clock
        self._runs = runs
        self._wake = threading.Event()
        """Set when there is something to do before the next turn."""
        renderer = Renderer([path.expanduser() for path in settings.hpc.template_dirs])
        self._stages: StagingBackend | None = None
        # Without a batch system all jobs are on this machine, with its images.
        stager = TaskStager(settings, clock, share=launch.terms.slurm)
        for remark in stager.remarks:
            log.warning("settings", remark=remark)
        if launch.terms.standalone:
            self._stages = CachedStaging(stager)
        elif settings.hpc.envs.build_on == "login":
            self._stages = LoginStaging(stager, self._wake)
        elif settings.hpc.envs.build_on == "job":
            self._stages = StagingJobs(scheduler, settings, launch, renderer, clock)
        self._activity = Activity(client, options.worker, options.schedule, clock)
        self._actor = Actor(client, scheduler, settings, options.worker, clock)
        self._troubles = TaskErrorReporter(self._actor, runs, clock)
        self._submitter = Submitter(client, scheduler, settings, launch, self._stages, renderer, clock)
        root, cluster = settings.hpc.root.expanduser(), scheduler.cluster()
        unsettled = OpenAttemptIndex(root / "unsettled" / cluster, options.queues, clock)
        self._observer = ClusterObserver(client, scheduler, runs, options.queues, unsettled, clock)
        self._turns = QueueLeases(root / "turns" / cluster, options.queues, clock)
        self._notifier = Notifier(client, settings.hpc.notify, cluster, clock)
        self._pruner = Pruner(runs, settings.hpc.keep_runs_days, clock)
        self._last_served: QueueId | None = None
        self._stopping = threading.Event()
        self._later_until: dict[QueueId, float] = {}
        self._shelved: dict[Attempt, float] = {}
        """Until when those wait whose submission the server or the scheduler gave no answer to."""
        self._is_unclear = False
        """Whether the scheduler gave sbatch no answer in this pass."""

    def stop(self) -> None:
        """Ask ``run`` to return soon; may be called from a signal handler."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Passes at the poll interval, slower while the server or the scheduler does not answer."""
        heartbeat = threading.Thread(target=self._heartbeat, name="heartbeat", daemon=True)
        heartbeat.start()
        pause = self._settings.hpc.poll_interval
        while not self._stopping.is_set():
            pause = self._settings.hpc.poll_interval if self._safely() else min(pause * 2, _LONGEST_BACKOFF_S)
            self._clock.wait(self._wake, pause)
            self._wake.clear()
        self._close_stages()
        self._turns.give_back()
        self._leave()
        self._notifier.finish(NOTIFY_AT_STOP_S)

    def once(self) -> bool:
        """One pass that waits for its stages; False if the server or the scheduler did not answer."""
        self._turns.wait_for_one()
        done = self._safely(wait=True)
        self._observer.leave()
        self._close_stages()
        self._notifier.finish(NOTIFY_S)
        self._turns.give_back()
        return done

    def _close_stages(self) -> None:
        if self._stages is not None:
            self._stages.close()

    def _safely(self, *, wait: bool = False) -> bool:
        try:
            self.run_pass(wait=wait)
        except (ServerUnreachableError, SchedulerUnavailableError) as error:
            log.warning("no answer, nothing is concluded", error=error)
            return False
        except Exception as error:  # noqa: BLE001 - the top of the loop: the next pass starts from what is true then
            log.error("pass failed", error=error, trace=not isinstance(error, HpcAgentError))
            return False
        return True

    def run_pass(self, *, wait: bool = False) -> None:
        """observe → decide → act.

        Raises:
            ServerUnreachableError, SchedulerUnavailableError: nothing was seen.
        """
        for queue in self._observer.orphaned:
            self._turns.also(queue)
        served = self._turns.ours()
        if not served:
            return
        world = self._observer.look(served)
        self._notifier.update(world)
        self._pruner.turn()
        for attempt, found in world.unreadable.items():
            self._meet(attempt, found.error, found.queue, may_fail=not found.has_job)
        submits: dict[Attempt, int] = {}
        for attempt in world.sights:
            if self._stopping.is_set():
                return
            actions: list[due.Action] = []
            self._guarded(world, attempt, partial(self._decide, world, attempt, actions))
            for action in actions:
                if not self._guarded(world, attempt, partial(self._act, world, attempt, action, submits)):
                    break
        self._submit_all(world, submits, wait)

    def _submit_all(self, world: ClusterSnapshot, submits: dict[Attempt, int], wait: bool) -> None:
        """In turn, while server and scheduler answer."""
        space = CapacityAllocator(self._scheduler.room())
        failures = 0
        self._is_unclear = False
        for attempt in self._choose(world, submits):
            if self._stopping.is_set() or space.full or self._is_unclear:
                break
            if self._is_later(world, attempt):
                continue
            if not self._guarded(world, attempt, partial(self._submit, world, attempt, submits[attempt], space, wait)):
                # One task's trouble, perhaps: the next passes try others first.
                self._shelved[attempt] = self._clock.monotonic() + LATER_S
                failures += 1
                if failures == _FAILURES:
                    break

    def _guarded(self, world: ClusterSnapshot, attempt: Attempt, act: Callable[[], None]) -> bool:
        """One attempt's trouble is not the others'; False if the server or scheduler gave it no answer."""
        try:
            act()
        except (ServerUnreachableError, SchedulerUnavailableError) as error:
            log.warning("no answer, left for the next pass", task=attempt.task, error=error)
            return False
        except Exception as error:  # noqa: BLE001 - one poisoned task must not hold up all queues
            known = isinstance(error, (HpcAgentError, OSError))
            log.error("action failed", task=attempt.task, attempt=attempt.id, error=error, trace=not known)
            sight = world.sights[attempt]
            if sight.entry is not None:
                may_fail = not sight.jobs and sight.claimed is None
                self._meet(attempt, error, self._queue_of(world, attempt), may_fail=may_fail)
        return True

    def _meet(self, attempt: Attempt, error: Exception, queue: Queue, *, may_fail: bool) -> None:
        """The task's user reads of it; the queue goes on."""
        try:
            self._troubles.meet(attempt, error, queue, may_fail=may_fail)
        except Exception as second:  # noqa: BLE001 - the next pass meets it again
            log.error("trouble not told", task=attempt.task, attempt=attempt.id, error=second)
        self._shelved[attempt] = self._clock.monotonic() + self._troubles.pause(attempt)

    def _decide(self, world: ClusterSnapshot, attempt: Attempt, actions: list[due.Action]) -> None:
        actions += decide(world.sights[attempt], self._clock.now(), self._rules(world, attempt))

    def _act(self, world: ClusterSnapshot, attempt: Attempt, action: due.Action, submits: dict[Attempt, int]) -> None:
        files = world.files[attempt]
        actor = self._actor
        match action:
            case due.SubmitJob(number):
                submits[attempt] = number
            case due.FindByName(number, refusal=refusal):
                if not actor.look_up(attempt, files, action):
                    return
                if refusal:
                    failed = due.RejectTask(TaskStatus.FAILED, refusal)
                    actor.refuse(attempt, files.directory, self._queue_of(world, attempt), failed)
                else:
                    submits[attempt] = number
            case due.RejectTask():
                actor.refuse(attempt, files.directory, self._queue_of(world, attempt), action)
            case due.AdoptJob():
                actor.adopt(files, action)
            case due.CancelJob():
                actor.cancel(attempt, action)
            case due.ReleaseJob():
                actor.release(attempt, action)
            case due.SetStatusMessage():
                self._say(attempt, action, files.directory)
            case due.PublishExitReport():
                actor.finish(attempt, files)
            case due.SetFinalStatus():
                actor.settle(attempt, files, action)
            case due.Requeue():
                actor.put_back(attempt, files, action)
            case due.DropClaim():
                files.directory.drop_claim()
            case due.MarkDone():
                if files.staging is not None and self._stages is not None:
                    self._stages.drop(attempt)
                if actor.close(attempt, files, action):
                    self._observer.forget(attempt)

    def _rules(self, world: ClusterSnapshot, attempt: Attempt) -> AttemptPolicy:
        submission = world.files[attempt].submission
        waits = next((queue.name for queue in world.queues if attempt in world.waiting[queue.id]), "")
        return rules(self._settings.hpc, submission.queue_name if submission else waits)

    def _is_later(self, world: ClusterSnapshot, attempt: Attempt) -> bool:
        return self._clock.monotonic() < self._later_until.get(self._queue_of(world, attempt).id, 0.0)

    def _queue_of(self, world: ClusterSnapshot, attempt: Attempt) -> Queue:
        return next(queue for queue in world.queues if attempt in world.waiting[queue.id])

    def _choose(self, world: ClusterSnapshot, submits: dict[Attempt, int]) -> list[Attempt]:
        if not submits:
            return []
        active = self._activity.of(world.queues)
        now = self._clock.monotonic()
        self._shelved = {attempt: until for attempt, until in self._shelved.items() if until > now}
        due_now = submits.keys() - self._shelved.keys()
        live = {attempt for attempt, sight in world.sights.items() if sight.jobs}
        lanes = [
            QueueCandidates(
                queue.id,
                tuple(attempt for attempt in world.waiting[queue.id] if attempt in due_now),
                sum(1 for attempt in live if _queue_id(world, attempt) == queue.id),
                self._settings.hpc.queue(queue.name).max_jobs,
            )
            for queue in world.queues
            if queue.id in active and now >= self._later_until.get(queue.id, now)
        ]
        if self._options.fair:
            lanes = rotated(lanes, self._last_served)
        return choose(lanes, len(live), self._settings.hpc.max_jobs, fair=self._options.fair)

    def _submit(
        self, world: ClusterSnapshot, attempt: Attempt, number: int, space: CapacityAllocator, wait: bool
    ) -> None:
        queue = self._queue_of(world, attempt)
        directory = self._runs.of(attempt)
        self._observer.remember(attempt)
        try:
            answer = self._submitter.submit(attempt, queue, directory, number, space, wait=wait)
        except _USERS_FAULT as error:
            self._actor.refuse(attempt, directory, queue, due.RejectTask(TaskStatus.FAILED, str(error)))
            return
        self._troubles.forget(attempt)
        if isinstance(answer, NoCapacity):
            self._say(attempt, due.SetStatusMessage(answer.message), directory)
            return
        if answer is not None:
            self._last_served = queue.id
        if isinstance(answer, Refused):
            reason = f"the scheduler refused the job: {answer.message}"
            self._actor.refuse(attempt, directory, queue, due.RejectTask(TaskStatus.FAILED, reason))
        elif isinstance(answer, OutcomeUnknown):
            if answer.doubt is UnclearAnswer.NO_ANSWER:
                # A controller that freezes lets each sbatch wait for minutes.
                self._is_unclear = True
                self._later_until[queue.id] = self._clock.monotonic() + LATER_S
            self._actor.say(attempt, explain_doubt(answer.doubt, answer.message), directory)
        elif isinstance(answer, LimitReached):
            self._say(attempt, due.SetStatusMessage(f"Waiting to be submitted: {answer.message}"), directory)
            # Asking for the next of the queue at once would only load the controller. Others may have other limits.
            self._later_until[queue.id] = self._clock.monotonic() + LATER_S
        elif answer is None and self._stages is not None:
            self._say(attempt, due.SetStatusMessage(self._stages.says(attempt)), directory)

    def _say(self, attempt: Attempt, action: due.SetStatusMessage, directory: RunDirectory) -> None:
        """A message that the server refuses keeps no task from its job."""
        try:
            self._actor.say(attempt, action, directory)
        except ApiError as error:
            log.warning("its message was refused", task=attempt.task, error=error)

    def _heartbeat(self) -> None:
        """Shows us on the server's list of workers; nothing depends on it."""
        usage = UsageReader(self._clock, GpuReader(self._options.gpus))
        options = self._options
        registered = False
        while not self._stopping.is_set():
            try:
                if not registered:
                    self._client.workers.register(options.worker, options.queues, options.tags)
                    registered = True
                self._client.workers.report(
                    options.worker, queues=options.queues, stats=usage.read(), tags=options.tags
                )
            except HpcAgentError as error:
                log.debug("no sign of life", error=error)
            self._clock.wait(self._stopping, REPORT_INTERVAL_S)

    def _leave(self) -> None:
        try:
            self._client.workers.unregister(self._options.worker)
        except HpcAgentError as error:
            log.debug("not unregistered", error=error)


def _queue_id(world: ClusterSnapshot, attempt: Attempt) -> str:
    record = world.files[attempt].submission
    return record.queue if record else ""
