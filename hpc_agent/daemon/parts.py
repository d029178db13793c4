"""Construction of a daemon's parts: what observes, decides what goes first, and acts in its passes."""

from __future__ import annotations

from functools import partial

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.act import Actor
from hpc_agent.daemon.action_dispatch import ActionDispatch
from hpc_agent.daemon.attempt_guard import AttemptGuard
from hpc_agent.daemon.head_starts import HeadStarts
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.job_staging import StagingJobs
from hpc_agent.daemon.login_staging import CachedStaging, LoginStaging, StagingBackend
from hpc_agent.daemon.loop_options import LoopOptions
from hpc_agent.daemon.notifier import Notifier
from hpc_agent.daemon.observe import ClusterObserver
from hpc_agent.daemon.pace import Pace
from hpc_agent.daemon.partition_hints import PartitionHints
from hpc_agent.daemon.pilot_queues import PilotQueues
from hpc_agent.daemon.pilot_submissions import PilotSubmissions
from hpc_agent.daemon.prune import Pruner
from hpc_agent.daemon.served_queues import Activity, QueueLeases
from hpc_agent.daemon.submissions import Submissions
from hpc_agent.daemon.submitter import Submitter
from hpc_agent.daemon.task_errors import TaskErrorReporter
from hpc_agent.daemon.task_owners import TaskOwners
from hpc_agent.daemon.waiting_tasks import WaitingTasks
from hpc_agent.daemon.worker_reports import WorkerReports
from hpc_agent.logs import EventLog
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.runs.session_folders import SessionFolders
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.staging import TaskStager
from hpc_agent.submission.render import Renderer
from hpc_agent.wake_up import WakeUp
from hpc_agent.watcher.phase_log import PhaseLog

log = EventLog("daemon")


class DaemonParts(msgspec.Struct, frozen=True):
    """The parts that the loop itself calls."""

    observer: ClusterObserver
    staging: StagingBackend | None
    """None: the jobs build their environments themselves."""
    head_starts: HeadStarts
    hints: PartitionHints
    phases: PhaseLog
    guard: AttemptGuard
    dispatch: ActionDispatch
    submissions: Submissions
    leases: QueueLeases
    notifier: Notifier
    pruner: Pruner
    pace: Pace
    reports: WorkerReports


def build_parts(
    client: Client,
    scheduler: Scheduler,
    settings: AllSettings,
    launch: JobLaunchConfig,
    options: LoopOptions,
    clock: Clock,
    wake: WakeUp,
) -> DaemonParts:
    """``wake`` is set when there is something to do before the next pass."""
    hpc, cluster = settings.hpc, scheduler.cluster()
    runs = RunsFolder(hpc.runs)
    backend = backends.choose(hpc)
    renderer = Renderer(backend.script(hpc), hpc.template_dirs)
    staging = _staging(scheduler, settings, launch, renderer, clock, wake)
    actor = Actor(client, scheduler, settings, options.worker, clock)
    task_errors = TaskErrorReporter(actor, runs, clock)
    inspector = partial(backend.inspector, hpc, clock)
    head_starts = HeadStarts(inspector, hpc, clock)
    observer = ClusterObserver(client, scheduler, runs, options.queues, clock, options.entries)
    waiting = WaitingTasks(actor, runs, hpc, cluster, clock)
    guard = AttemptGuard(task_errors, observer, waiting)
    hints, phases = PartitionHints(inspector, hpc, clock), PhaseLog()
    submissions = Submissions(
        Submitter(client, scheduler, settings, launch, staging, renderer, head_starts, clock),
        scheduler,
        staging,
        actor,
        waiting,
        PilotSubmissions(PilotQueues(scheduler, settings, launch, renderer, clock), hpc.max_jobs),
        task_errors,
        Activity(client, options.worker, options.schedule, clock),
        TaskOwners(client),
        hpc,
        guard,
        observer.remember,
        clock,
        fair=options.fair,
    )
    return DaemonParts(
        observer=observer,
        staging=staging,
        head_starts=head_starts,
        hints=hints,
        phases=phases,
        guard=guard,
        dispatch=ActionDispatch(actor, observer, waiting, staging, hints, phases),
        submissions=submissions,
        leases=QueueLeases(hpc.root / "turns" / cluster, options.queues, clock),
        notifier=Notifier(client, hpc.notify, cluster, clock),
        pruner=Pruner(runs, SessionFolders(hpc.root / "sessions", runs), hpc.keep_runs_days, clock),
        pace=Pace(hpc, observer, clock, is_free=not launch.options.batch_system),
        reports=WorkerReports(client, options, clock),
    )


def _staging(
    scheduler: Scheduler,
    settings: AllSettings,
    launch: JobLaunchConfig,
    renderer: Renderer,
    clock: Clock,
    wake: WakeUp,
) -> StagingBackend | None:
    # Without a batch system all jobs are on this machine, with its images.
    stager = TaskStager(settings, clock, share=bool(launch.options.batch_system))
    for warning in stager.warnings:
        log.warning("daemon.settings", warning=warning)
    if launch.options.standalone:
        return CachedStaging(stager)
    if settings.hpc.envs.build_on == "login":
        return LoginStaging(stager, wake)
    if settings.hpc.envs.build_on == "job":
        return StagingJobs(scheduler, settings, launch, renderer, clock)
    return None
