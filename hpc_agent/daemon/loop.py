"""Daemon: runs passes (observe, decide, act) at the poll interval, and reports itself as a worker."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.act import Actor
from hpc_agent.daemon.head_starts import HeadStarts, LeftToOthers
from hpc_agent.daemon.job_launch import JobLaunchConfig, rules
from hpc_agent.daemon.job_staging import StagingJobs
from hpc_agent.daemon.login_staging import CachedStaging, LoginStaging, StagingBackend
from hpc_agent.daemon.notifier import Notifier
from hpc_agent.daemon.observe import ClusterObserver, ClusterSnapshot
from hpc_agent.daemon.open_attempts import OpenAttemptIndex
from hpc_agent.daemon.partition_hints import PartitionHints
from hpc_agent.daemon.pilot_queues import PilotQueues
from hpc_agent.daemon.prune import Pruner
from hpc_agent.daemon.served_queues import Activity, QueueLeases
from hpc_agent.daemon.submitter import CapacityAllocator, NoCapacity, Submitter
from hpc_agent.daemon.task_errors import TaskErrorReporter
from hpc_agent.daemon.task_owners import EntryFilter
from hpc_agent.domain import actions
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.capacity import QueueCandidates, choose, held_back, rotated
from hpc_agent.domain.decide import decide, explain_doubt
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.domain.job import Accepted, LimitReached, OutcomeUnknown, Refused, UnclearAnswer
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
    UserMapError,
)
from hpc_agent.logs import EventLog
from hpc_agent.retry import next_pause
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.runs.session_folders import SessionFolders
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.staging import TaskStager
from hpc_agent.submission.render import Renderer
from hpc_agent.telemetry.usage import GpuReader, UsageReader
from hpc_agent.watcher.phase_log import PhaseLog

log = EventLog("daemon")

REPORT_INTERVAL_S = 30.0
NOTIFY_S = 15.0
"""How long a single pass stays for its notifications."""
NOTIFY_AT_STOP_S = 2.0
POSTPONED_S = 30.0
"""How long a queue's tasks wait after the scheduler said that a limit is met, or gave no answer."""
LEFT_S = 600.0
"""How long a task that this cluster cannot run stays for other clusters of its queue before it is tried here again."""
_FAILURES = 2
"""So many calls without an answer in one pass, and it is not the task but the server or the scheduler."""
_TASK_ERRORS = (
    *(UserMapError, ResourceError, TemplateError, SourceError, EnvironmentBuildError, ContainerError, InputError),
)
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
    entries: EntryFilter | None = None
    """The entries of the queues that are ours to serve; None: all."""
    each_pass: Callable[[], None] = lambda: None
    """Called before each pass."""
    idle_after: float = math.inf
    """Seconds without an attempt to see to, after which ``run`` returns."""


class Daemon:
    """Daemon that serves queues: ``run`` until it is asked to stop; jobs go on without it."""

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
        """Set when there is something to do before the next pass."""
        language = backends.choose(settings.hpc).script(settings.hpc)
        renderer = Renderer(language, settings.hpc.template_dirs)
        self._staging: StagingBackend | None = None
        # Without a batch system all jobs are on this machine, with its images.
        stager = TaskStager(settings, clock, share=bool(launch.options.batch_system))
        for warning in stager.warnings:
            log.warning("daemon.settings", warning=warning)
        if launch.options.standalone:
            self._staging = CachedStaging(stager)
        elif settings.hpc.envs.build_on == "login":
            self._staging = LoginStaging(stager, self._wake)
        elif settings.hpc.envs.build_on == "job":
            self._staging = StagingJobs(scheduler, settings, launch, renderer, clock)
        self._activity = Activity(client, options.worker, options.schedule, clock)
        self._actor = Actor(client, scheduler, settings, options.worker, clock)
        self._task_errors = TaskErrorReporter(self._actor, runs, clock)
        inspector = partial(backends.choose(settings.hpc).inspector, settings.hpc, clock)
        self._head_starts = HeadStarts(inspector, settings.hpc, clock)
        self._submitter = Submitter(
            client, scheduler, settings, launch, self._staging, renderer, self._head_starts, clock
        )
        self._pilots = PilotQueues(scheduler, settings, launch, renderer, clock)
        root, cluster = settings.hpc.root, scheduler.cluster()
        open_attempts = OpenAttemptIndex(root / "unsettled" / cluster, options.queues, clock)
        self._observer = ClusterObserver(client, scheduler, runs, options.queues, open_attempts, clock, options.entries)
        self._leases = QueueLeases(root / "turns" / cluster, options.queues, clock)
        self._notifier = Notifier(client, settings.hpc.notify, cluster, clock)
        sessions = SessionFolders(root / "sessions", runs)
        self._pruner = Pruner(runs, sessions, settings.hpc.keep_runs_days, clock)
        self._phases = PhaseLog()
        self._hints = PartitionHints(inspector, settings.hpc, clock)
        self._last_served: QueueId | None = None
        self._stopping = threading.Event()
        self._postponed_until: dict[QueueId, float] = {}
        self._shelved: dict[Attempt, float] = {}
        """Until when those wait whose submission the server or the scheduler gave no answer to."""
        self._is_unclear = False
        """Whether the scheduler gave sbatch no answer in this pass."""
        self._busy_at = clock.monotonic()
        """When a pass last had an attempt to see to."""

    def stop(self) -> None:
        """Ask ``run`` to return soon; may be called from a signal handler."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Passes at the poll interval, slower while the server or the scheduler does not answer."""
        heartbeat = threading.Thread(target=self._heartbeat, name="heartbeat", daemon=True)
        heartbeat.start()
        pause = self._settings.hpc.poll_interval
        while not self._stopping.is_set() and not self._is_idle():
            self._options.each_pass()
            pause = self._settings.hpc.poll_interval if self._try_pass() else next_pause(pause)
            self._clock.wait(self._wake, pause)
            self._wake.clear()
        self._stopping.set()
        self._close_staging()
        self._leases.give_back()
        self._unregister()
        self._notifier.finish(NOTIFY_AT_STOP_S)

    def _is_idle(self) -> bool:
        return self._clock.monotonic() - self._busy_at > self._options.idle_after

    def once(self) -> bool:
        """One pass that waits for its stages; False if the server or the scheduler did not answer."""
        self._leases.wait_for_one()
        done = self._try_pass(wait=True)
        self._observer.close()
        self._close_staging()
        self._notifier.finish(NOTIFY_S)
        self._leases.give_back()
        return done

    def _close_staging(self) -> None:
        if self._staging is not None:
            self._staging.close()

    def _try_pass(self, *, wait: bool = False) -> bool:
        try:
            self.run_pass(wait=wait)
        except (ServerUnreachableError, SchedulerUnavailableError) as error:
            log.warning("pass.no_answer", error=error)
            return False
        except Exception as error:  # noqa: BLE001 - the top of the loop: the next pass starts from what is true then
            log.error("pass.failed", error=error, trace=not isinstance(error, HpcAgentError))
            return False
        return True

    def run_pass(self, *, wait: bool = False) -> None:
        """observe → decide → act.

        Raises:
            ServerUnreachableError, SchedulerUnavailableError: nothing was seen.
        """
        for queue in self._observer.orphaned:
            self._leases.also(queue)
        served = self._leases.ours()
        if not served:
            return
        cluster = self._observer.observe(served)
        if cluster.snapshots:
            self._busy_at = self._clock.monotonic()
        self._hints.begin_pass()
        self._head_starts.begin_pass(cluster.snapshots)
        if self._staging is not None:
            self._staging.update(cluster.staging)
        self._notifier.update(cluster)
        self._pruner.turn()
        for attempt, found in cluster.unreadable.items():
            self._report_error(attempt, found.error, found.queue, may_fail=not found.has_job)
        submits: dict[Attempt, int] = {}
        for attempt in cluster.snapshots:
            if self._stopping.is_set():
                return
            decided: list[actions.Action] = []
            self._guarded(cluster, attempt, partial(self._decide, cluster, attempt, decided))
            for action in decided:
                if not self._guarded(cluster, attempt, partial(self._act, cluster, attempt, action, submits)):
                    break
        self._submit_all(cluster, submits, wait)

    def _submit_all(self, cluster: ClusterSnapshot, submits: dict[Attempt, int], wait: bool) -> None:
        """In turn, while server and scheduler answer."""
        space = CapacityAllocator(self._scheduler.room())
        failures = 0
        self._is_unclear = False
        for attempt in self._choose(cluster, submits):
            if self._stopping.is_set() or space.full or self._is_unclear:
                break
            if self._is_postponed(cluster, attempt):
                continue
            if not self._guarded(
                cluster, attempt, partial(self._submit, cluster, attempt, submits[attempt], space, wait)
            ):
                # Perhaps only this task fails so: the next passes try others first.
                self._shelved[attempt] = self._clock.monotonic() + POSTPONED_S
                failures += 1
                if failures == _FAILURES:
                    break

    def _guarded(self, cluster: ClusterSnapshot, attempt: Attempt, act: Callable[[], None]) -> bool:
        """Keep one attempt's error from the others; False if the server or scheduler gave no answer."""
        try:
            act()
        except (ServerUnreachableError, SchedulerUnavailableError) as error:
            log.warning("task.no_answer", task=attempt.task, error=error)
            return False
        except Exception as error:  # noqa: BLE001 - one poisoned task must not hold up all queues
            known = isinstance(error, (HpcAgentError, OSError))
            log.error("task.action_failed", task=attempt.task, attempt=attempt.id, error=error, trace=not known)
            snapshot = cluster.snapshots[attempt]
            if snapshot.entry is not None:
                may_fail = not snapshot.jobs and snapshot.claimed is None
                self._report_error(attempt, error, cluster.queue_of[attempt], may_fail=may_fail)
        return True

    def _report_error(self, attempt: Attempt, error: Exception, queue: Queue, *, may_fail: bool) -> None:
        """Show the error on the task; the queue goes on."""
        try:
            self._task_errors.report(attempt, error, queue, may_fail=may_fail)
        except Exception as second:  # noqa: BLE001 - the next pass meets it again
            log.error("task.error_not_reported", task=attempt.task, attempt=attempt.id, error=second)
        self._shelved[attempt] = self._clock.monotonic() + self._task_errors.pause(attempt)

    def _decide(self, cluster: ClusterSnapshot, attempt: Attempt, decided: list[actions.Action]) -> None:
        snapshot, policy = cluster.snapshots[attempt], self._rules(cluster, attempt)
        self._phases.note(attempt, attempt.task, snapshot, policy.lost_after)
        decided += decide(snapshot, self._clock.now(), policy)

    def _act(
        self, cluster: ClusterSnapshot, attempt: Attempt, action: actions.Action, submits: dict[Attempt, int]
    ) -> None:
        files = cluster.files[attempt]
        actor = self._actor
        match action:
            case actions.SubmitJob(number):
                submits[attempt] = number
            case actions.FindByName(number, refusal=refusal):
                if not actor.find_by_name(attempt, files, action):
                    return
                if refusal:
                    self._reject(cluster, attempt, actions.RejectTask(TaskStatus.FAILED, refusal))
                else:
                    submits[attempt] = number
            case actions.RejectTask():
                self._reject(cluster, attempt, action)
            case actions.AdoptJob():
                actor.adopt(files, action)
            case actions.CancelJob():
                actor.cancel(attempt, action)
            case actions.ReleaseJob():
                actor.release(attempt, action)
            case actions.SetStatusMessage():
                self._say(attempt, self._with_hint(cluster, attempt, action), files.directory)
            case actions.PublishExitReport():
                actor.concluder.publish_exit_report(attempt, files)
            case actions.SetFinalStatus():
                actor.concluder.set_final_status(attempt, files, action)
            case actions.Requeue():
                actor.concluder.requeue(attempt, files, action)
            case actions.DropClaim():
                files.directory.drop_claim()
            case actions.MarkDone():
                if files.staging is not None and self._staging is not None:
                    self._staging.drop(attempt)
                if actor.mark_done(attempt, files, action):
                    self._observer.forget(attempt)
                    self._phases.forget(attempt)
                    self._hints.forget(attempt)

    def _rules(self, cluster: ClusterSnapshot, attempt: Attempt) -> AttemptPolicy:
        submission = cluster.files[attempt].submission
        if submission is not None:
            return rules(self._settings.hpc, submission.queue_name)
        queue = cluster.queue_of.get(attempt)
        return rules(self._settings.hpc, queue.name if queue else "")

    def _is_postponed(self, cluster: ClusterSnapshot, attempt: Attempt) -> bool:
        return self._clock.monotonic() < self._postponed_until.get(cluster.queue_of[attempt].id, 0.0)

    def _choose(self, cluster: ClusterSnapshot, submits: dict[Attempt, int]) -> list[Attempt]:
        if not submits:
            self._keep_pilots(cluster, ())
            return []
        active = self._activity.of(cluster.queues)
        now = self._clock.monotonic()
        self._shelved = {attempt: until for attempt, until in self._shelved.items() if until > now}
        due_now = submits.keys() - self._shelved.keys()
        live = {attempt for attempt, snapshot in cluster.snapshots.items() if snapshot.jobs}
        names = {queue.id: queue.name for queue in cluster.queues}
        all_lanes = [
            QueueCandidates(
                queue.id,
                tuple(attempt for attempt in cluster.waiting[queue.id] if attempt in due_now),
                sum(1 for attempt in live if _queue_id(cluster, attempt) == queue.id),
                self._settings.hpc.queue(queue.name).max_jobs,
            )
            for queue in cluster.queues
            if queue.id in active and now >= self._postponed_until.get(queue.id, now)
        ]
        if self._options.fair:
            all_lanes = rotated(all_lanes, self._last_served)
        in_pilots = {queue.id for queue in cluster.queues if self._pilots.serves(queue)}
        lanes = [lane for lane in all_lanes if lane.queue not in in_pilots]
        pilot_lanes = [lane for lane in all_lanes if lane.queue in in_pilots]
        self._keep_pilots(cluster, pilot_lanes)
        handed_over = self._pilots.choose(pilot_lanes, names)
        for lane in pilot_lanes:
            if waiting := next((attempt for attempt in lane.due if attempt not in handed_over), None):
                why = actions.SetStatusMessage(self._pilots.message(names[lane.queue]))
                self._guarded(cluster, waiting, partial(self._say, waiting, why, self._runs.of(waiting)))
        limit = self._settings.hpc.max_jobs
        live = {attempt for attempt in live if not self._pilots.is_pilot_task(cluster.snapshots[attempt].jobs)}
        chosen = choose(lanes, len(live), limit, fair=self._options.fair)
        for attempt, message in held_back(lanes, chosen, limit).items():
            say = partial(self._say, attempt, actions.SetStatusMessage(message), self._runs.of(attempt))
            self._guarded(cluster, attempt, say)
        return [*handed_over, *chosen]

    def _keep_pilots(self, cluster: ClusterSnapshot, lanes: Sequence[QueueCandidates]) -> None:
        """An error of theirs keeps no other queue from its jobs."""
        try:
            self._pilots.keep(cluster.queues, {lane.queue: len(lane.due) for lane in lanes}, cluster.live)
        except (SchedulerUnavailableError, OSError) as error:
            log.warning("pilots.not_kept", error=error)

    def _submit(
        self, cluster: ClusterSnapshot, attempt: Attempt, number: int, space: CapacityAllocator, wait: bool
    ) -> None:
        queue = cluster.queue_of[attempt]
        directory = self._runs.of(attempt)
        self._observer.remember(attempt)
        try:
            answer = self._submitter.submit(attempt, queue, directory, number, space, wait=wait)
        except _TASK_ERRORS as error:
            self._reject(cluster, attempt, actions.RejectTask(TaskStatus.FAILED, str(error)))
            return
        self._task_errors.forget(attempt)
        if isinstance(answer, (NoCapacity, LeftToOthers)):
            self._say(attempt, self._named(queue.name, actions.SetStatusMessage(answer.message)), directory)
            if isinstance(answer, LeftToOthers):
                self._shelved[attempt] = self._clock.monotonic() + answer.look_again
            return
        if answer is not None:
            self._last_served = queue.id
        if isinstance(answer, Accepted):
            self._actor.forget_message(attempt)
        elif isinstance(answer, Refused):
            reason = f"the scheduler refused the job: {answer.message}"
            self._reject(cluster, attempt, actions.RejectTask(TaskStatus.FAILED, reason))
        elif isinstance(answer, OutcomeUnknown):
            if answer.doubt is UnclearAnswer.NO_ANSWER:
                # A controller that freezes lets each sbatch wait for minutes.
                self._is_unclear = True
                self._postponed_until[queue.id] = self._clock.monotonic() + POSTPONED_S
            self._actor.set_status_message(attempt, explain_doubt(answer.doubt, answer.message), directory)
        elif isinstance(answer, LimitReached):
            message = actions.SetStatusMessage(f"Waiting to be submitted: {answer.message}")
            self._say(attempt, self._named(queue.name, message), directory)
            # Asking for the next of the queue at once would only load the controller. Others may have other limits.
            self._postponed_until[queue.id] = self._clock.monotonic() + POSTPONED_S
        elif answer is None and self._staging is not None:
            message = actions.SetStatusMessage(self._staging.status_message(attempt))
            self._say(attempt, self._named(queue.name, message), directory)

    def _reject(self, cluster: ClusterSnapshot, attempt: Attempt, action: actions.RejectTask) -> None:
        """Give a waiting task its final status. Where other clusters serve its queue, they may be able to run it."""
        queue, directory = cluster.queue_of[attempt], self._runs.of(attempt)
        if action.status is not TaskStatus.FAILED or not self._settings.hpc.queue(queue.name).shared:
            self._actor.reject(attempt, directory, queue, action)
            return
        log.info("task.left_to_others", task=attempt.task, queue=queue.name, reason=action.reason)
        self._shelved[attempt] = self._clock.monotonic() + LEFT_S
        message = actions.SetStatusMessage(f"left to other clusters of its queue: {action.reason}")
        self._actor.show_error(attempt, self._named(queue.name, message).message)

    def _named(self, queue: str, action: actions.SetStatusMessage) -> actions.SetStatusMessage:
        """In a shared queue each cluster has something to report of a task that waits."""
        if not self._settings.hpc.queue(queue).shared:
            return action
        return replace(action, message=f"{self._scheduler.cluster()}: {action.message}")

    def _with_hint(
        self, cluster: ClusterSnapshot, attempt: Attempt, action: actions.SetStatusMessage
    ) -> actions.SetStatusMessage:
        """The message of a job that waits for resources, with the partition on which it would start sooner."""
        jobs, submission = cluster.snapshots[attempt].jobs, cluster.files[attempt].submission
        if submission is None or action.ping:
            return action
        if jobs and not action.console:
            hint = self._hints.hint(attempt, submission.queue_name, jobs[0], cluster.files[attempt].directory)
            action = replace(action, message=f"{action.message}{hint}")
        return self._named(submission.queue_name, action)

    def _say(self, attempt: Attempt, action: actions.SetStatusMessage, directory: RunDirectory) -> None:
        """A message that the server refuses keeps no task from its job."""
        try:
            self._actor.set_status_message(attempt, action, directory)
        except ApiError as error:
            log.warning("task.message_refused", task=attempt.task, error=error)

    def _heartbeat(self) -> None:
        """Report the daemon to the server's list of workers; nothing depends on it."""
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
                log.debug("daemon.report_failed", error=error)
            self._clock.wait(self._stopping, REPORT_INTERVAL_S)

    def _unregister(self) -> None:
        try:
            self._client.workers.unregister(self._options.worker)
        except HpcAgentError as error:
            log.debug("daemon.unregister_failed", error=error)


def _queue_id(cluster: ClusterSnapshot, attempt: Attempt) -> str:
    record = cluster.files[attempt].submission
    return record.queue if record else ""
