"""Starts a daemon: in the foreground, in the background, or for one pass."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import cached_property
from pathlib import Path

import click
import msgspec
from msgspec.structs import replace

from hpc_agent.access import user_name
from hpc_agent.api.client import Client
from hpc_agent.cli.daemon_flags import DaemonFlags
from hpc_agent.cli.shared_options import Shared, check_folders, exit_code, fail
from hpc_agent.clock import SYSTEM
from hpc_agent.config.job_config import share_job_config
from hpc_agent.config.load import Configuration
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig, job_configs
from hpc_agent.daemon.loop import Daemon, collect_garbage_seldom
from hpc_agent.daemon.loop_options import LoopOptions
from hpc_agent.daemon.options import DaemonOptions, JobNaming, WorkerIdTemplate, job_settings, name, slots
from hpc_agent.daemon.registration import DaemonRecord, DaemonRegistry
from hpc_agent.daemon.task_owners import EntryFilter, MainEntries, ShareEntries
from hpc_agent.daemon.user_daemons import IDLE_S, UserDaemons
from hpc_agent.domain.capacity import GpuRange
from hpc_agent.domain.gpu_ids import visible_gpus
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.schedule import Schedule, schedule
from hpc_agent.domain.user_map import UserMap, UserShare
from hpc_agent.errors import ConfigError, HpcAgentError, InputError, UnknownQueueError
from hpc_agent.file_records import ensure_directory
from hpc_agent.logs import EventLog
from hpc_agent.process.background import detach, send_output_to
from hpc_agent.relay.connector import relay
from hpc_agent.retry import INTERACTIVE
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.base import Backend, Scheduler, Share
from hpc_agent.schedulers.local import gpu_inventory
from hpc_agent.schedulers.local.settings import LocalSettings

log = EventLog("daemon")


class SharedUsers(msgspec.Struct, frozen=True):
    """What a daemon serves on behalf of another one."""

    users: UserMap
    share: UserShare


class DaemonPlan(msgspec.Struct, frozen=True, dict=True):
    """Configuration of a daemon before it has its worker id."""

    flags: DaemonFlags
    configuration: Configuration
    client: Client
    queues: Sequence[Queue]
    options: DaemonOptions
    schedule: Schedule
    pool: tuple[str, ...]
    """GPUs of this machine that its jobs may have; none with a batch system, which has its own."""
    batch_system: Scheduler | None
    """None: jobs run on this machine."""
    share: SharedUsers | None = None
    """The users whose tasks it serves, as a part of another daemon."""

    @property
    def settings(self) -> AllSettings:
        return self.configuration.settings

    @property
    def cluster(self) -> str:
        """Name of the cluster; empty without a batch system."""
        return self.batch_system.cluster() if self.batch_system else ""

    @cached_property
    def name(self) -> WorkerIdTemplate:
        agent = self.settings.agent
        return name(
            self.options,
            agent.worker_id or agent.name,
            given=bool(agent.worker_id),
            visible=None if self.batch_system else visible_gpus(os.environ),
            cluster=self.cluster,
        )


def start(shared: Shared, flags: DaemonFlags, share: SharedUsers | None = None) -> None:
    """Run until stopped; with ``--detached`` in the background, with ``--once`` one pass.

    ``share``: serve these users' tasks only.

    Raises:
        InputError, ConfigError, ServerUnreachableError …: it cannot start.
    """
    plan = replace(make_plan(shared, flags), share=share)
    _check_root(plan.settings)
    if flags.once:
        shared.start_log("INFO")
        # Not registered: one pass is over in a moment.
        daemons = daemons_of(plan.settings)
        ensure_directory(daemons.folder, mode=0o700)
        others = other_daemons(plan, daemons.folder, starts=False)
        done = _daemon(plan, plan.name.id(0), daemons, others).once()
        done = (others is None or others.once()) and done
        sys.exit(0 if done else 69)
    if not flags.detached:
        _serve(shared, plan, _announcer(plan))
        return
    sys.stdout.flush()
    sys.stderr.flush()
    background, descriptor = detach()
    if background:
        _in_background(shared, plan, descriptor)
    else:
        _report_start(descriptor)


def _check_root(settings: AllSettings) -> None:
    root = settings.hpc.root
    try:
        ensure_directory(root)
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigError(
            f"hpc.root ({root}) is not writable ({error.strerror}); set it to a folder of yours on the shared file "
            "system"
        ) from error
    check_folders(settings)


def make_plan(shared: Shared, flags: DaemonFlags) -> DaemonPlan:
    """
    Raises:
        HpcAgentError: the flags do not fit each other, the server or this machine.
    """
    flags.check()
    configuration = flags.configuration(shared)
    shared.apply(configuration)
    for note in configuration.notes:
        click.echo(note, err=True)
    settings = configuration.settings
    plan = schedule(settings.agent.uptime, settings.agent.downtime)
    client = shared.client(configuration, INTERACTIVE)
    if flags.use_owner_token:
        client.owners.check()
    backend = backends.choose(settings.hpc)
    batch_system = backend.create(settings.hpc, SYSTEM) if backend.is_batch_system else None
    if batch_system is not None:
        batch_system = backends.with_pilots(batch_system, settings.hpc, SYSTEM)
    queues, dynamic, templates = _queues(client, flags)
    if templates and not batch_system:
        raise InputError("--template-files needs a batch system: on this machine alone no job has a script")
    options = flags.options(
        settings, batch_system=backend.name if batch_system else "", dynamic=dynamic, templates=templates
    )
    pool = (
        ()
        if batch_system
        else gpu_inventory.names(settings.hpc.backend_settings(LocalSettings).gpus, os.environ, options.gpus)
    )
    if options.dynamic is not None and not batch_system:
        _check_pool(options.dynamic, pool)
    _check_pilots(settings, backend, queues)
    return DaemonPlan(flags, configuration, client, queues, options, plan, pool, batch_system)


def _queues(
    client: Client, flags: DaemonFlags
) -> tuple[list[Queue], dict[str, GpuRange] | None, dict[str, str] | None]:
    """The queues in order of priority, by name the GPUs of their tasks (``--dynamic-gpus``), and their templates."""
    try:
        ids = {named: client.queues.resolve(named, create=flags.create_queue) for named, _ in flags.allocations}
        wanted: dict[QueueId, GpuRange | None] = {ids[named]: gpus for named, gpus in flags.allocations} or {
            client.queues.default(): None
        }
    except UnknownQueueError as error:
        raise InputError(f"{error}; --create-queue makes it") from error
    queues = client.queues.get_many(list(wanted))
    dynamic = {queue.name: wanted[queue.id] for queue in queues}
    files = {ids[named]: file for named, file in flags.template_of().items()}
    templates = {queue.name: files[queue.id] for queue in queues if queue.id in files}
    return (
        queues,
        {name: gpus for name, gpus in dynamic.items() if gpus} if flags.dynamic_gpus else None,
        templates or None,
    )


def _check_pool(dynamic: Mapping[str, GpuRange], pool: Sequence[str]) -> None:
    for queue, wanted in dynamic.items():
        if wanted.least > len(pool):
            raise InputError(
                f"tasks of queue {queue} need {wanted.least} GPUs each, but this machine has {len(pool)} for them"
            )


def _check_pilots(settings: AllSettings, backend: Backend, queues: Sequence[Queue]) -> None:
    if backend.is_batch_system and backend.script(settings.hpc).pilot_template:
        return
    for queue in queues:
        if settings.hpc.queue(queue.name).mode == "pilot":
            raise ConfigError(
                f'hpc.queues."{queue.name}".mode is pilot, but {backend.name}, which hpc.scheduler chose, runs no '
                "pilots: set the mode to job"
            )


def daemons_of(settings: AllSettings) -> DaemonRegistry:
    """The records of the daemons that share our root."""
    return DaemonRegistry(settings.hpc.root / "daemons", socket.gethostname(), SYSTEM)


def _serve(shared: Shared, plan: DaemonPlan, announce: Callable[[DaemonRecord, Path], None]) -> None:
    """Serve until stopped. ``announce`` is called with the log file at the start."""
    daemons = daemons_of(plan.settings)
    record = daemons.register(
        plan.name.id,
        numbered=plan.name.numbered,
        flags=plan.flags.given(),
        waiting=lambda line: click.echo(line, err=True),
    )
    try:
        log_file = daemons.file(record.worker, "log")
        shared.start_log("INFO", None if plan.flags.foreground else log_file)
        others = other_daemons(plan, daemons.folder)
        daemon = _daemon(plan, record.worker, daemons, others)
        collect_garbage_seldom()
        daemon.stop_on_signals()
        with ExitStack() as stack:
            stack.enter_context(relay(plan.settings, plan.cluster, record.worker, SYSTEM))
            announce(record, log_file)
            if others is not None:
                stack.enter_context(closing(others))
                others.resume()
            daemon.run()
    finally:
        daemons.unregister(record)


def _daemon(plan: DaemonPlan, worker: WorkerId, daemons: DaemonRegistry, others: UserDaemons | None = None) -> Daemon:
    settings = plan.settings
    # The daemon's id is not its jobs'.
    login = plan.client.session.current_login
    job_config = share_job_config(plan.configuration, daemons.folder, {"agent.worker_id": ""}, login)
    naming = JobNaming(worker, settings.agent.worker_id or settings.agent.name, given=bool(settings.agent.worker_id))
    own_configs = job_configs(plan.client, plan.configuration, owner_tokens=plan.flags.use_owner_token)
    agent = settings.hpc.agent_command or (sys.executable, "-m", "hpc_agent")
    staged_agent = _staged_agent(settings.hpc) if plan.batch_system else ()
    launch = JobLaunchConfig(job_config, agent, plan.options, naming, own_configs, staged_agent)
    scheduler = plan.batch_system or _local(plan, worker)
    about = backends.describe(scheduler)
    log.info("daemon.started", scheduler=about.name, follows="; ".join(about.notes), worker=worker)
    options = LoopOptions(
        tuple(queue.id for queue in plan.queues),
        worker,
        plan.flags.order_fairness,
        plan.schedule,
        settings.agent.tags,
        None if plan.batch_system else plan.pool,
        entries=entries_of(plan, others),
        each_pass=others.look if others else lambda: None,
        idle_after=IDLE_S if plan.share else math.inf,
    )
    names = [queue.name for queue in plan.queues]
    # The folder that the daemon was started in may be deleted.
    os.chdir(settings.hpc.root)
    jobs = job_settings(settings, plan.options, names, len(plan.pool))
    return Daemon(plan.client, scheduler, jobs, launch, options, SYSTEM)


def _staged_agent(hpc: HpcSettings) -> tuple[str, ...]:
    if not hpc.agent_archive:
        return ()
    from hpc_agent.bundles.agent_archive import staged_agent_command  # for sites that want it

    return staged_agent_command(hpc, makes=True)


def other_daemons(plan: DaemonPlan, folder: Path, *, starts: bool = True) -> UserDaemons | None:
    """The daemons of the users of ``hpc.user_map``; None without one."""
    if not plan.settings.hpc.user_map:
        return None
    from hpc_agent.cli import user_daemon

    return user_daemon.other_daemons(plan, folder, starts=starts)


def entries_of(plan: DaemonPlan, others: UserDaemons | None) -> EntryFilter | None:
    """The part of the queues that this daemon serves; None: all."""
    if plan.share is not None:
        return ShareEntries(plan.client, plan.share.users, plan.share.share)
    if others is None:
        return None
    users = UserMap(plan.settings.hpc.user_map)
    return MainEntries(plan.client, users, others, user_name(), by_clearml_user=plan.flags.use_owner_token)


def _local(plan: DaemonPlan, worker: WorkerId) -> Scheduler:
    share = Share(worker, slots(plan.settings, plan.options, len(plan.pool)), plan.pool)
    return backends.create(plan.settings.hpc, SYSTEM, share=share)


def _announcer(plan: DaemonPlan) -> Callable[[DaemonRecord, Path], None]:
    def announce(record: DaemonRecord, log: Path) -> None:
        click.echo(f"{_serving(plan, record)}; Ctrl-C or SIGTERM stops, jobs go on", err=True)
        if not plan.flags.foreground:
            click.echo(f"The log is {log}", err=True)

    return announce


def _serving(plan: DaemonPlan, record: DaemonRecord) -> str:
    names = ", ".join(queue.name for queue in plan.queues)
    through = plan.batch_system.name if plan.batch_system else "this machine"
    return f"Serving {names} through {through} as {record.worker}"


def _in_background(shared: Shared, plan: DaemonPlan, descriptor: int) -> None:
    """Serve; the process at the terminal waits for one message about the start."""

    def announce(record: DaemonRecord, log: Path) -> None:
        send_output_to(log)
        message = f"{_serving(plan, record)} in the background, process {record.process.pid}\nThe log is {log}"
        os.write(descriptor, json.dumps({"started": message}).encode())
        os.close(descriptor)

    try:
        _serve(shared, plan, announce)
    except HpcAgentError as error:
        with suppress(OSError):  # closed after "started"
            os.write(descriptor, json.dumps({"error": str(error), "code": exit_code(error)}).encode())
        raise


def _report_start(descriptor: int) -> None:
    with os.fdopen(descriptor, "rb") as background:
        message = background.read()
    if not message:
        raise HpcAgentError("the daemon ended at its start without a message; try again with --foreground")
    start = json.loads(message)
    if "error" in start:
        fail(HpcAgentError(start["error"]), start["code"])
    click.echo(start["started"])
