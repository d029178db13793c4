"""Daemon: runs passes (observe, decide, act) at the poll interval, and reports itself as a worker."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.act import Actor
from hpc_agent.daemon.head_starts import HeadStarts
from hpc_agent.daemon.job_launch import JobLaunchConfig, rules
from hpc_agent.daemon.job_staging import StagingJobs
from hpc_agent.daemon.login_staging import CachedStaging, LoginStaging, StagingBackend
from hpc_agent.daemon.notifier import Notifier
from hpc_agent.daemon.observe import ClusterObserver, ClusterSnapshot
from hpc_agent.daemon.pace import Pace, is_quiet
from hpc_agent.daemon.partition_hints import PartitionHints
from hpc_agent.daemon.pilot_queues import PilotQueues
from hpc_agent.daemon.pilot_submissions import PilotSubmissions
from hpc_agent.daemon.prune import Pruner
from hpc_agent.daemon.served_queues import Activity, QueueLeases
from hpc_agent.daemon.submissions import Submissions
from hpc_agent.daemon.submitter import Submitter
from hpc_agent.daemon.task_errors import TaskErrorReporter
from hpc_agent.daemon.task_owners import EntryFilter, TaskOwners
from hpc_agent.daemon.waiting_tasks import WaitingTasks
from hpc_agent.domain import actions
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.decide import decide
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.schedule import Schedule
from hpc_agent.domain.snapshot import AttemptPolicy
from hpc_agent.errors import (
    HpcAgentError,
    SchedulerUnavailableError,
    ServerUnreachableError,
)
from hpc_agent.logs import EventLog
from hpc_agent.retry import next_pause
from hpc_agent.runs.directory import RunsFolder
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
        self._actor = Actor(client, scheduler, settings, options.worker, clock)
        self._task_errors = TaskErrorReporter(self._actor, runs, clock)
        inspector = partial(backends.choose(settings.hpc).inspector, settings.hpc, clock)
        self._head_starts = HeadStarts(inspector, settings.hpc, clock)
        root, cluster = settings.hpc.root, scheduler.cluster()
        self._observer = ClusterObserver(client, scheduler, runs, options.queues, clock, options.entries)
        self._waiting = WaitingTasks(self._actor, runs, settings.hpc, cluster, clock)
        self._submissions = Submissions(
            Submitter(client, scheduler, settings, launch, self._staging, renderer, self._head_starts, clock),
            scheduler,
            self._staging,
            self._actor,
            self._waiting,
            PilotSubmissions(PilotQueues(scheduler, settings, launch, renderer, clock)),
            self._task_errors,
            Activity(client, options.worker, options.schedule, clock),
            TaskOwners(client),
            settings.hpc,
            self._guarded,
            self._observer.remember,
            clock,
            fair=options.fair,
        )
        self._leases = QueueLeases(root / "turns" / cluster, options.queues, clock)
        self._notifier = Notifier(client, settings.hpc.notify, cluster, clock)
        sessions = SessionFolders(root / "sessions", runs)
        self._pruner = Pruner(runs, sessions, settings.hpc.keep_runs_days, clock)
        self._phases = PhaseLog()
        self._hints = PartitionHints(inspector, settings.hpc, clock)
        self._pace = Pace(settings.hpc, self._observer, clock, is_free=not launch.options.batch_system)
        self._is_woken = False
        """Whether something ended the last pause."""
        self._policies: dict[str, AttemptPolicy] = {}
        """Of each queue, by name."""
        self._stopping = threading.Event()
        self._is_busy = False
        """Whether the last pass had an attempt to see to."""
        self._busy_at = clock.monotonic()
        """When that was so the last time."""

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
            self._is_woken = self._clock.wait(self._wake, pause)
            self._wake.clear()
        self._stopping.set()
        self._close_staging()
        self._leases.give_back()
        self._unregister()
        self._notifier.finish(NOTIFY_AT_STOP_S)

    def _is_idle(self) -> bool:
        return not self._is_busy and self._clock.monotonic() - self._busy_at > self._options.idle_after

    def once(self) -> bool:
        """One pass that waits for its stages; False if the server or the scheduler did not answer."""
        self._leases.wait_for_one()
        done = self._try_pass(wait=True)
        self._close_staging()
        self._notifier.finish(NOTIFY_S)
        self._leases.give_back()
        return done

    def _close_staging(self) -> None:
        if self._staging is not None:
            self._staging.close()

    def _try_pass(self, *, wait: bool = False) -> bool:
        """A pass, if it is due; False if server or scheduler did not answer."""
        try:
            if self._is_woken or self._pace.is_due():
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
        self._pace.note(is_quiet=False)
        for queue in self._observer.orphaned:
            self._leases.also(queue)
        served = self._leases.ours()
        if not served:
            return
        cluster = self._observer.observe(served)
        # Passes are left out while jobs only wait or run: until the last one ended the daemon was busy.
        if cluster.snapshots or self._is_busy:
            self._busy_at = self._clock.monotonic()
        self._is_busy = bool(cluster.snapshots)
        self._hints.begin_pass()
        self._head_starts.begin_pass(cluster.snapshots)
        if self._staging is not None:
            self._staging.update(cluster.staging)
        self._notifier.update(cluster)
        self._pruner.turn(wait=wait)
        for attempt, found in cluster.unreadable.items():
            self._report_error(attempt, found.error, found.queue, may_fail=not found.has_job)
        submits: dict[Attempt, int] = {}
        others: list[actions.Action] = []
        for attempt in cluster.snapshots:
            if self._stopping.is_set():
                return
            decided: list[actions.Action] = []
            self._guarded(cluster, attempt, partial(self._decide, cluster, attempt, decided))
            others += [action for action in decided if not isinstance(action, actions.SubmitJob)]
            for action in decided:
                if not self._guarded(cluster, attempt, partial(self._act, cluster, attempt, action, submits)):
                    break
        submitted = self._submissions.submit(cluster, submits, self._stopping, waits=wait)
        self._pace.note(is_quiet=not submitted and is_quiet(cluster, others))

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
        self._observer.remember(attempt)
        try:
            self._task_errors.report(attempt, error, queue, may_fail=may_fail)
        except Exception as second:  # noqa: BLE001 - the next pass meets it again
            log.error("task.error_not_reported", task=attempt.task, attempt=attempt.id, error=second)
        self._waiting.shelve(attempt, self._task_errors.pause(attempt))

    def _decide(self, cluster: ClusterSnapshot, attempt: Attempt, decided: list[actions.Action]) -> None:
        snapshot, policy = cluster.snapshots[attempt], self._rules(cluster, attempt)
        self._phases.note(attempt, attempt.task, snapshot, policy.lost_after)
        decided += decide(snapshot, self._clock.now(), policy)

    def _act(
        self, cluster: ClusterSnapshot, attempt: Attempt, action: actions.Action, submits: dict[Attempt, int]
    ) -> None:
        files = cluster.files[attempt]
        actor = self._actor
        if not isinstance(action, (actions.SubmitJob, actions.SetStatusMessage)):
            self._observer.remember(attempt)
        match action:
            case actions.SubmitJob(number):
                submits[attempt] = number
            case actions.FindByName(number, refusal=refusal):
                if not actor.find_by_name(attempt, files, action):
                    return
                if refusal:
                    self._waiting.fail(cluster.queue_of[attempt], attempt, refusal)
                else:
                    submits[attempt] = number
            case actions.RejectTask():
                self._waiting.reject(cluster.queue_of[attempt], attempt, action)
            case actions.AdoptJob():
                actor.adopt(files, action)
            case actions.CancelJob():
                actor.cancel(attempt, action)
            case actions.ReleaseJob():
                actor.release(attempt, action)
            case actions.SetStatusMessage():
                self._waiting.say(attempt, self._with_hint(cluster, attempt, action), files.directory)
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
            return self._policy(submission.queue_name)
        queue = cluster.queue_of.get(attempt)
        return self._policy(queue.name if queue else "")

    def _policy(self, queue: str) -> AttemptPolicy:
        if queue not in self._policies:
            self._policies[queue] = rules(self._settings.hpc, queue)
        return self._policies[queue]

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
        return self._waiting.named(submission.queue_name, action)

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
