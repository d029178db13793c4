"""Execution of one task on one node: claim it, start it, prepare it, run its process, report how it ended."""

from __future__ import annotations

import os
import shutil
import signal
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.cancellation import Cancelled
from hpc_agent.clock import Clock
from hpc_agent.config.load import Configuration
from hpc_agent.config.resource_settings import QueueSettings
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.gpu_ids import visible_gpus
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.outcome import out_of_memory
from hpc_agent.domain.task import Task
from hpc_agent.errors import AuthError, HpcAgentError, NotFoundError, NotQueuedError, ServerUnreachableError
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.claim import Claimer, ClaimWatch, Lost, Won
from hpc_agent.executor.console import Console
from hpc_agent.executor.many_nodes import ManyNodes, is_one_of_many, plan_of, set_master_defaults
from hpc_agent.executor.node_step import NodesLostError
from hpc_agent.executor.prefetch import EnvPrefetch
from hpc_agent.executor.prepare import ExecuteOptions, PreparedTask, Preparer
from hpc_agent.executor.report import DAEMON_MANAGED, INTERRUPTED, InputRecorder, Reporter, run_token
from hpc_agent.executor.stall_guard import StallGuard
from hpc_agent.executor.step_process import STEP_OF, StepProcess
from hpc_agent.executor.stop_conditions import CAUSE_S, StopConditions, StopReason, handled_signals
from hpc_agent.executor.supervise import ProcessSupervisor, Stoppable
from hpc_agent.executor.task_outcome import ExitContext, TaskOutcome, ended, never_started, not_launched
from hpc_agent.executor.watch import CLAIM_INTERVAL_S, Meters, Watch, WatchedRun
from hpc_agent.file_records import CorruptFileError, ensure_directory, private_folder
from hpc_agent.logs import EventLog
from hpc_agent.process.supervised import StopTimeouts, Supervised
from hpc_agent.redact import without_secrets
from hpc_agent.runs.attempt_records import MemoryRecord, RequeueBudget
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.base import JobVariables
from hpc_agent.telemetry.memory import JobMemory
from hpc_agent.telemetry.node_processes import NodeProcesses
from hpc_agent.telemetry.shipper import ConsoleSource
from hpc_agent.telemetry.usage import GpuReader, UsageReader

if TYPE_CHECKING:
    from hpc_agent.executor.usage_recorder import UsageRecorder

log = EventLog("executor")

FENCE_S = 4 * CLAIM_INTERVAL_S
"""Four looks of a start that the scheduler took for dead and that still lives: it has ended by then."""
_NODE_TRIES = 5
"""Starts of the agents of a job's nodes; a large step fails now and then on one of them."""
_NODE_PAUSE_S = 5.0
"""Between two starts, and longer each time: the scheduler's daemon on a node may be away for a moment."""
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


class ExecutionOptions(msgspec.Struct, frozen=True):
    """Flags of ``execute``, without those that shape the process."""

    require_queue: bool = False
    report: bool = True
    """False with ``--disable-monitoring``: the console goes to standard output only."""
    echoes: tuple[IO[bytes], ...] = ()


class Executor(msgspec.Struct, frozen=True):
    """Executor of one task on this node; ``execute`` once."""

    client: Client
    configuration: Configuration
    identity: AgentIdentity
    options: ExecuteOptions
    clock: Clock

    @property
    def settings(self) -> AllSettings:
        return self.configuration.settings

    def execute(self, task_id: TaskId, options: ExecutionOptions, prefetch: EnvPrefetch | None = None) -> int:
        """Claim and run the task; returns the exit code to end with: 0 in a daemon's job whose task another one runs.

        Args:
            prefetch: of ``begin_prefetch``, where that was called.

        Raises:
            NotFoundError, InputError: it cannot be run as asked; nothing was started.
            NotQueuedError: it was to be taken off its queue and is not queued, or another one took it. Not in a
                daemon's job, nor in one of whose processes another one runs it.
            ServerUnreachableError, AuthError: the server did not let it start; nothing has run, and the daemon puts
                the task back.
        """
        job = backends.job_variables()
        if job is not None and job.process_index and is_one_of_many(job, os.environ):
            log.info("task.run_by_first_process", task=task_id, process=job.process_index)
            return 0
        task = self._task(task_id, options)
        directory = self._directory(task)
        claimed = Claimer(self.client, directory, self.identity, self.clock).claim(
            task, require_queue=options.require_queue
        )
        if isinstance(claimed, Lost):
            log.info("task.not_claimed", task=task_id, reason=claimed.reason)
            if self.identity.daemon_managed or claimed.by_this_job:
                return 0
            raise NotQueuedError(f"task {task_id} was not run: {claimed.reason}")
        log.info("task.claimed", task=task_id, attempt=directory.attempt.id, job=self.identity.job)
        return TaskRun(self, task, directory, claimed, prefetch).run(options)

    def begin_prefetch(self) -> EnvPrefetch | None:
        """In a job of a daemon, which has staged all: begin to unpack the environment while the server is asked."""
        if self.identity.run_dir is None or not self.options.standalone:
            return None
        prefetch = EnvPrefetch(self.settings, RunDirectory(self.identity.run_dir), self.clock)
        prefetch.begin()
        return prefetch

    def _task(self, task_id: TaskId, options: ExecutionOptions) -> Task:
        try:
            return self.client.tasks.get(task_id)
        except NotFoundError as error:
            if not options.require_queue or self.identity.daemon_managed:
                raise
            raise NotQueuedError(
                f"task {task_id} was not run: the server has no such task, or does not show it to this account"
            ) from error

    def _directory(self, task: Task) -> RunDirectory:
        queue = None if self.identity.daemon_managed else self.client.queues.queue_of(task.id)
        return self.identity.directory(RunsFolder(self.settings.hpc.runs), task.id, queue)


class TaskRun:
    """Run of a claimed task, from its start on the server to its report; ``run`` once."""

    def __init__(
        self,
        executor: Executor,
        task: Task,
        directory: RunDirectory,
        claimed: Won,
        prefetch: EnvPrefetch | None = None,
    ) -> None:
        identity = executor.identity
        current_job, variables = backends.current_job(), backends.job_variables()
        self._executor = executor
        self._current_job = current_job
        self._task = task
        self._directory = directory
        self._claimed = claimed
        self._prefetch = prefetch
        self._claim_watch = ClaimWatch(directory, claimed.claim)
        self._policy = self._queue_settings()
        self._stop = StopConditions(current_job, identity.restart_count, self._policy.signal_ahead, executor.clock)
        self._memory = MemoryMonitor(directory, variables)
        self._began = executor.clock.monotonic()
        self._stall_guard = StallGuard()
        self._reporter = Reporter(
            executor.client, identity, directory, claimed.claim, current_job, executor.clock, self._stall_guard
        )

    def run(self, options: ExecutionOptions) -> int:
        """Returns the exit code to end with.

        Raises:
            ServerUnreachableError, AuthError: as ``Executor.execute``.
        """
        console = self._console(options)
        with handled_signals(self._stop.request, self._stop.deadline):
            outcome = self._outcome(console)
            self._reporter.report(console, outcome, self._count_restart(outcome))
        log.info("task.ended", task=self._task.id, status=outcome.status, exit_code=outcome.exit_code)
        return outcome.exit_code

    def _outcome(self, console: Console) -> TaskOutcome:
        """Start, prepare and run; whatever happens becomes an outcome."""
        watch = self._watch(console)
        try:
            taken_back = self._reporter.start(
                self._task, self._executor.settings.agent.tags, taken_at=self._claimed.taken_at
            )
            if taken_back:
                return taken_back
            watch.start()
            if self._claimed.silent:
                # The last lines of the run before come before our first.
                self._stop.request.sleep(FENCE_S, self._executor.clock)
            console.start()
            if self._claimed.resumed:
                console.write_line(f"Restart {self._identity.restart_count} of job {self._identity.job}")
            return self._run_process(console)
        except Cancelled:
            return ended(-signal.SIGTERM, self._exit_context())
        except (ServerUnreachableError, AuthError):
            raise
        except NodesLostError as error:
            return not_launched(str(error), daemon_managed=self._identity.daemon_managed)
        except HpcAgentError as error:
            console.write_line(str(error))
            return never_started(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the task gets its final status
            log.error("task.run_failed", task=self._task.id, error=error, trace=True)
            message = f"the task could not be run: {type(error).__name__}: {error}"
            console.write_line(message)
            return never_started(message)
        finally:
            watch.finish()

    def _run_process(self, console: Console) -> TaskOutcome:
        executor = self._executor
        plan = plan_of(self._task, executor.settings, self._queue_name, executor.options.gpus)
        if plan is None:
            set_master_defaults(executor.settings, os.environ)
            return self._run_one_process(console)
        nodes = ManyNodes(
            *(self._task, self._directory, plan, executor.settings, self._identity, executor.clock),
            console.write_line,
        )
        try:
            self._open(nodes, console)
            return self._supervise(PreparedTask([], {}, Path("/"), inputs=nodes.inputs()), console, nodes)
        finally:
            nodes.close()

    def _open(self, nodes: ManyNodes, console: Console) -> None:
        """Start the nodes' agents and wait for them; again where the scheduler could not start one of them.

        Raises:
            Cancelled, HpcAgentError: as ``ManyNodes``.
        """
        for left in reversed(range(_NODE_TRIES)):
            nodes.open()
            try:
                self._stop.request.run_cancellable(nodes.wait_ready, "prepare")
            except NodesLostError as error:
                nodes.close()
                if not left:
                    raise
                console.write_line(f"Starting the agents of the nodes again: {error}")
                self._stop.request.sleep((_NODE_TRIES - left) * _NODE_PAUSE_S, self._executor.clock)
            else:
                return

    def _run_one_process(self, console: Console) -> TaskOutcome:
        workdir = private_folder(self._executor.settings.hpc.scratch) / "work" / self._process_name
        ensure_directory(workdir, mode=0o700)
        preparer = Preparer(
            self._executor.configuration,
            self._identity.worker,
            self._executor.options,
            self._executor.clock,
            console.write_line,
            self._executor.client.tasks.get_object,
            self._prefetch,
        )
        try:
            prepared = self._stop.request.run_cancellable(
                lambda: preparer.prepare(self._task, self._directory, workdir), "prepare"
            )
            try:
                return self._supervise(prepared, console)
            finally:
                prepared.clean_up()
        finally:
            shutil.rmtree(workdir, ignore_errors=True)

    def _supervise(self, prepared: PreparedTask, console: Console, nodes: ManyNodes | None = None) -> TaskOutcome:
        if not self._still_ours():
            return ended(0, ExitContext(StopReason.FENCED))
        self._write_process_started()
        child = nodes.start(console, self._stop.request) if nodes else _start(prepared, console, self._process_name)
        log.info("process.started", task=self._task.id, pid=child.pid)
        _import_what_comes_later()
        usage = self._usage_recorder()
        usage.start()
        recorder = InputRecorder(self._executor.client, self._task, prepared.inputs)
        recorder.start()
        settings = self._executor.settings.hpc
        supervisor = ProcessSupervisor(
            child,
            console.write_line,
            self._stop,
            self._executor.clock,
            StopTimeouts(settings.term_grace, interrupt=settings.interrupt_after),
            signal.Signals[f"SIG{self._policy.signal}"],
        )
        code = supervisor.run()
        self._current_job.release()
        usage.stop(nodes.finish(self._nodes_seconds()) if nodes else None)
        # A task that completed by itself is not run again because its job got SIGTERM just then.
        completed = code == 0 and supervisor.ended_by_itself and self._stall_guard.call(self._still_ours, True)
        context = ExitContext() if completed else self._exit_context(code, console.write_error)
        if context.reason is None and code and not context.out_of_memory:
            end = nodes.group.end if nodes and nodes.group else None
            if end and end.not_launched:
                context = replace(context, not_launched=end.cause)
            else:
                cause = end.cause if end and end.cause else self._console_cause(console, code)
                context = replace(context, console_cause=without_secrets(cause))
        outcome = ended(code, context)
        self._reporter.note(outcome)
        recorder.finish()
        if console.ships and outcome.status != "none":
            usage.report(completed=outcome.status == "completed", time_limit=self._stop.time_limit)
        return outcome

    def _nodes_seconds(self) -> float:
        """How long the other nodes may take to send what their ranks printed."""
        return INTERRUPTED.seconds if self._stop.reason is StopReason.SIGNAL else DAEMON_MANAGED.seconds

    def _usage_recorder(self) -> UsageRecorder:
        from hpc_agent.executor.usage_recorder import UsageRecorder

        executor = self._executor
        return UsageRecorder(
            executor.client, self._task.id, self._identity, self._directory, executor.clock, self._began
        )

    def _write_process_started(self) -> None:
        """From here on the user's process may have run."""
        try:
            self._directory.write_claim(msgspec.structs.replace(self._claimed.claim, user_process_started=True))
        except OSError as error:
            log.error("claim.not_written", directory=self._directory.path, error=error)

    def _exit_context(self, code: int | None = None, file_trouble: str = "") -> ExitContext:
        """Facts about an end; ``code`` is the exit code if the process ran."""
        stop, policy = self._stop, self._policy
        cause = stop.termination.cause(CAUSE_S) if stop.reason is StopReason.SIGNAL else None
        requeues = self._identity.daemon_managed and policy.on_time_limit == "requeue"
        used = self._requeues_used() if requeues else 0
        return ExitContext(
            reason=stop.reason,
            cause=cause,
            daemon_managed=self._identity.daemon_managed,
            limit=stop.time_limit,
            ran_for=stop.ran_for,
            may_requeue=requeues and used < policy.max_restarts,
            requeues_used=used,
            out_of_memory=self._memory.explain(code) if stop.reason is None and code else "",
            file_trouble=file_trouble,
        )

    def _console_cause(self, console: Console, code: int) -> str:
        from hpc_agent.domain.failure_cause import failure_cause

        cause = failure_cause(self._stall_guard.call(console.tail, ""), code)
        if cause is None:
            return ""
        log.info("task.failure_cause", task=self._task.id, kind=cause.kind.value, cause=cause.sentence)
        return without_secrets(str(cause))

    def _requeues_used(self) -> int:
        return len(self._stall_guard.call(self._directory.requeue_budget, RequeueBudget()).requeues)

    def _count_restart(self, outcome: TaskOutcome) -> str:
        """Count a restart in the task's budget where the job is to be started again: ``restart 1 of 3``, else empty."""
        if not outcome.requeue:
            return ""
        add = partial(self._directory.count_requeue, self._identity.restart_count)
        used = len(self._stall_guard.call(add, RequeueBudget()).requeues) or "more"
        return f"restart {used} of {self._policy.max_restarts}"

    def _console(self, options: ExecutionOptions) -> Console:
        executor = self._executor
        return Console(
            self._directory,
            ConsoleSource(self._task.id, self._identity.worker, executor.settings.agent.suppress_carriage_return),
            executor.client.events,
            executor.clock,
            start=self._identity.restart_count,
            ours=self._still_ours,
            echoes=options.echoes,
            ship=options.report,
        )

    def _watch(self, console: Console) -> Watch:
        task, agent = self._task, self._executor.settings.agent
        return Watch(
            self._executor.client,
            WatchedRun(
                task.id,
                self._identity.worker,
                run_token(self._directory, self._identity),
                [task.queue] if task.queue else [],
                self._still_ours,
                agent.tags,
            ),
            self._stop.request,
            self._executor.clock,
            ping_interval=agent.task_ping_interval_sec,
            callback_limit=agent.abort_callback_max_timeout,
            meters=Meters(UsageReader(self._executor.clock, GpuReader(visible_gpus(os.environ))), self._memory.update),
            write_line=console.write_line,
        )

    def _queue_settings(self) -> QueueSettings:
        """Of the queue that the daemon submitted this job for."""
        return self._executor.settings.hpc.queue(self._queue_name)

    @cached_property
    def _queue_name(self) -> str:
        try:
            submission = self._directory.submission()
        except CorruptFileError as error:
            log.warning("queue_settings.unreadable", error=error)
            submission = None
        return submission.queue_name if submission else ""

    def _still_ours(self) -> bool:
        return self._claim_watch.still_ours()

    @property
    def _identity(self) -> AgentIdentity:
        return self._executor.identity

    @property
    def _process_name(self) -> str:
        """Of this start of the job, for its folder and processes on this node."""
        return f"{self._directory.attempt.job_name}.{self._identity.restart_count}"


def _start(prepared: PreparedTask, console: Console, name: str) -> Stoppable:
    """``name``: no other process on this node has it."""
    child = Supervised(
        prepared.marked(STEP_OF, name),
        env=prepared.environ,
        cwd=prepared.cwd,
        output=console.sink,
        forwards_signals=prepared.forwards_signals,
    )
    return StepProcess(child, NodeProcesses(STEP_OF, name)) if prepared.in_step else child


def _import_what_comes_later() -> None:
    """Import what a run needs from the start of its process on: while that starts, and not at its end, when another
    version of this program may be installed."""
    for name in ("psutil", "hpc_agent.domain.failure_cause", "hpc_agent.executor.usage_recorder"):
        import_module(name)


class MemoryMonitor:
    """Memory of the job, written down for the daemon in case this agent is killed along with the task."""

    def __init__(self, directory: RunDirectory, job: JobVariables | None) -> None:
        self._directory = directory
        granted = job.memory_mb if job else None
        self._memory = JobMemory(granted, is_shared=bool(job and job.shares_control_group))
        self._written_mb = 0.0

    def update(self) -> None:
        self._memory.look()
        peak = self._memory.peak_mb
        if peak > 1.05 * self._written_mb:
            self._written_mb = peak
            self._directory.write_memory(MemoryRecord(used_mb=peak, limit_mb=self._memory.limit_mb))

    def explain(self, code: int) -> str:
        """Sentence for an exit code that means that memory ran out; empty for any other."""
        memory = self._memory
        if memory.has_run_out() or (code in _KILLED and memory.is_short):
            return out_of_memory(memory.peak_mb, memory.limit_mb)
        return ""
