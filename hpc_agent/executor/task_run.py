"""Run of a claimed task on one node: start it, prepare it, run its process, report how it ended."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
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
from hpc_agent.domain.task import Task
from hpc_agent.errors import (
    AuthError,
    HpcAgentError,
    NodesLostError,
    ServerUnreachableError,
)
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.claim import ClaimWatch, Won
from hpc_agent.executor.console import Console
from hpc_agent.executor.memory_monitor import MemoryMonitor
from hpc_agent.executor.prefetch import EnvPrefetch
from hpc_agent.executor.prepare import ExecuteOptions, PreparedTask, Preparer
from hpc_agent.executor.report import DAEMON_MANAGED, INTERRUPTED, InputRecorder, Reporter, run_token
from hpc_agent.executor.stall_guard import StallGuard
from hpc_agent.executor.stop_conditions import CAUSE_S, StopConditions, StopReason, handled_signals
from hpc_agent.executor.supervise import ProcessSupervisor, Stoppable
from hpc_agent.executor.task_nodes import plan_of, set_master_defaults
from hpc_agent.executor.task_outcome import ExitContext, TaskOutcome, ended, failed_by_scheduler, never_started
from hpc_agent.executor.watch import CLAIM_INTERVAL_S, Meters, Watch, WatchedRun
from hpc_agent.file_records import CorruptFileError, ensure_directory, private_folder
from hpc_agent.logs import EventLog
from hpc_agent.process.supervised import StopTimeouts, Supervised
from hpc_agent.redact import without_secrets
from hpc_agent.runs.attempt_records import RequeueBudget
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers import backends
from hpc_agent.telemetry.shipper import ConsoleSource
from hpc_agent.telemetry.usage import GpuReader, UsageReader

if TYPE_CHECKING:  # most tasks run on one node
    from hpc_agent.executor.many_nodes import ManyNodes
    from hpc_agent.executor.usage_recorder import UsageRecorder

log = EventLog("executor")

FENCE_S = 4 * CLAIM_INTERVAL_S
"""Four looks of a start that the scheduler took for dead and that still lives: it has ended by then."""
_SETTLE_S = 5.0
"""How long nodes whose ranks have failed may take to end before that is the task's end."""


class ExecutionOptions(msgspec.Struct, frozen=True):
    """Flags of ``execute``, without those that shape the process."""

    require_queue: bool = False
    report: bool = True
    """False with ``--disable-monitoring``: the console goes to standard output only."""
    echoes: tuple[IO[bytes], ...] = ()


class ExecutionContext(msgspec.Struct, frozen=True):
    """Context of the execution of one task on this node."""

    client: Client
    configuration: Configuration
    identity: AgentIdentity
    options: ExecuteOptions
    clock: Clock

    @property
    def settings(self) -> AllSettings:
        return self.configuration.settings


class TaskRun:
    """Run of a claimed task, from its start on the server to its report; ``run`` once."""

    def __init__(
        self,
        context: ExecutionContext,
        task: Task,
        directory: RunDirectory,
        claimed: Won,
        prefetch: EnvPrefetch | None = None,
    ) -> None:
        identity = context.identity
        current_job, variables = backends.current_job(), backends.job_variables()
        self._context = context
        self._current_job = current_job
        self._task = task
        self._directory = directory
        self._claimed = claimed
        self._prefetch = prefetch
        self._claim_watch = ClaimWatch(directory, claimed.claim)
        self._policy = self._queue_settings()
        self._stop = StopConditions(current_job, identity.restart_count, self._policy.signal_ahead, context.clock)
        self._memory = MemoryMonitor(directory, variables)
        self._began = context.clock.monotonic()
        self._stall_guard = StallGuard()
        self._reporter = Reporter(
            context.client, identity, directory, claimed.claim, current_job, context.clock, self._stall_guard
        )

    def run(self, options: ExecutionOptions) -> int:
        """Returns the exit code to end with.

        Raises:
            ServerUnreachableError, AuthError: as ``execution.Executor.execute``.
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
                self._task, self._context.settings.agent.tags, taken_at=self._claimed.taken_at
            )
            if taken_back:
                return taken_back
            watch.start()
            if self._claimed.silent:
                # The last lines of the run before come before our first.
                self._stop.request.sleep(FENCE_S, self._context.clock)
            console.start()
            if self._claimed.resumed:
                console.write_line(f"Restart {self._identity.restart_count} of job {self._identity.job}")
            return self._run_process(console)
        except Cancelled:
            return ended(-signal.SIGTERM, self._exit_context())
        except (ServerUnreachableError, AuthError):
            raise
        except NodesLostError as error:
            return failed_by_scheduler(str(error), daemon_managed=self._identity.daemon_managed)
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
        context = self._context
        plan = plan_of(self._task, context.settings, self._queue_name, context.options.gpus)
        if plan is None:
            set_master_defaults(context.settings, os.environ)
            return self._run_one_process(console)
        from hpc_agent.executor.many_nodes import ManyNodes, open_nodes

        nodes = ManyNodes(
            *(self._task, self._directory, plan, context.settings, self._identity, context.clock),
            console.write_line,
        )
        try:
            open_nodes(nodes, self._stop.request, context.clock, console.write_line)
            return self._supervise(PreparedTask([], {}, Path("/"), inputs=nodes.inputs()), console, nodes)
        finally:
            nodes.close()

    def _run_one_process(self, console: Console) -> TaskOutcome:
        workdir = private_folder(self._context.settings.hpc.scratch) / "work" / self._process_name
        ensure_directory(workdir, mode=0o700)
        preparer = Preparer(
            self._context.configuration,
            self._identity.worker,
            self._context.options,
            self._context.clock,
            console.write_line,
            self._context.client.tasks.get_object,
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
        recorder = InputRecorder(self._context.client, self._task, prepared.inputs)
        recorder.start()
        settings = self._context.settings.hpc
        supervisor = ProcessSupervisor(
            child,
            console.write_line,
            self._stop,
            self._context.clock,
            StopTimeouts(settings.term_grace, interrupt=settings.interrupt_after),
            signal.Signals[f"SIG{self._policy.signal}"],
        )
        code = supervisor.run()
        self._current_job.release()
        if nodes:
            # Where all of a node has died the scheduler ends this job too, and says so a moment after the ranks' end.
            nodes.finish(self._nodes_seconds(), wait=_SETTLE_S if code else 0.0)
        else:
            usage.stop()
        outcome = self._ended(code, supervisor, console, nodes)
        self._reporter.note(outcome)
        if nodes:
            # After the note: it may last as long as a server is away, and a job that dies meanwhile runs nothing again.
            usage.stop(nodes.end())
            outcome = replace(outcome, ranks_may_run=nodes.ranks_may_run)
        recorder.finish()
        if console.ships and outcome.status != "none":
            hurry = self._stop.reason is StopReason.SIGNAL
            usage.report(completed=outcome.status == "completed", time_limit=self._stop.time_limit, hurry=hurry)
        return outcome

    def _ended(
        self, code: int, supervisor: ProcessSupervisor, console: Console, nodes: ManyNodes | None
    ) -> TaskOutcome:
        """The outcome of a process that ran, or of ranks on nodes that may still send what those printed."""
        # A task that completed by itself is not run again because its job got SIGTERM just then.
        completed = code == 0 and supervisor.ended_by_itself and self._stall_guard.call(self._still_ours, True)
        context = ExitContext() if completed else self._exit_context(code, console.write_error)
        if context.reason is None and code and not context.out_of_memory:
            end = nodes.group.end if nodes and nodes.group else None
            if end and end.by_scheduler:
                context = replace(context, scheduler_failure=end.cause)
            else:
                cause = end.cause if end and end.cause else self._console_cause(console, code)
                context = replace(context, console_cause=without_secrets(cause))
        return replace(ended(code, context), ranks_may_run=nodes is not None and nodes.ranks_may_run)

    def _nodes_seconds(self) -> float:
        """How long the other nodes may take to send what their ranks printed."""
        return INTERRUPTED.seconds if self._stop.reason is StopReason.SIGNAL else DAEMON_MANAGED.seconds

    def _usage_recorder(self) -> UsageRecorder:
        from hpc_agent.executor.usage_recorder import UsageRecorder

        context = self._context
        return UsageRecorder(context.client, self._task.id, self._identity, self._directory, context.clock, self._began)

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
        context = self._context
        return Console(
            self._directory,
            ConsoleSource(self._task.id, self._identity.worker, context.settings.agent.suppress_carriage_return),
            context.client.events,
            context.clock,
            start=self._identity.restart_count,
            ours=self._still_ours,
            echoes=options.echoes,
            ship=options.report,
        )

    def _watch(self, console: Console) -> Watch:
        task, agent = self._task, self._context.settings.agent
        return Watch(
            self._context.client,
            WatchedRun(
                task.id,
                self._identity.worker,
                run_token(self._directory, self._identity),
                [task.queue] if task.queue else [],
                self._still_ours,
                agent.tags,
            ),
            self._stop.request,
            self._context.clock,
            ping_interval=agent.task_ping_interval_sec,
            callback_limit=agent.abort_callback_max_timeout,
            meters=Meters(UsageReader(self._context.clock, GpuReader(visible_gpus(os.environ))), self._memory.update),
            write_line=console.write_line,
        )

    def _queue_settings(self) -> QueueSettings:
        """Of the queue that the daemon submitted this job for."""
        return self._context.settings.hpc.queue(self._queue_name)

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
        return self._context.identity

    @property
    def _process_name(self) -> str:
        """Of this start of the job, for its folder and processes on this node."""
        return f"{self._directory.attempt.job_name}.{self._identity.restart_count}"


def _start(prepared: PreparedTask, console: Console, name: str) -> Stoppable:
    """``name``: no other process on this node has it."""
    if not prepared.in_step:
        return _supervised(prepared, prepared.argv, console)
    from hpc_agent.executor.step_process import STEP_OF, StepProcess
    from hpc_agent.telemetry.node_processes import NodeProcesses

    return StepProcess(_supervised(prepared, prepared.marked(STEP_OF, name), console), NodeProcesses(STEP_OF, name))


def _supervised(prepared: PreparedTask, argv: Sequence[str], console: Console) -> Supervised:
    return Supervised(
        argv,
        env=prepared.environ,
        cwd=prepared.cwd,
        output=console.sink,
        forwards_signals=prepared.forwards_signals,
    )


def _import_what_comes_later() -> None:
    """Import what a run needs from the start of its process on: while that starts, and not at its end, when another
    version of this program may be installed."""
    for name in ("psutil", "hpc_agent.domain.failure_cause", "hpc_agent.executor.usage_recorder"):
        import_module(name)
