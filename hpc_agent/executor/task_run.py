"""A run that is ours: start → prepare → supervise → report."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial
from typing import IO

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.load import Configuration
from hpc_agent.config.resource_settings import QueueSettings
from hpc_agent.domain.gpu_ids import visible_gpus
from hpc_agent.domain.outcome import out_of_memory
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task
from hpc_agent.errors import ApiError, AuthError, HpcAgentError, ServerUnreachableError
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.claim import Won, still_ours
from hpc_agent.executor.console import Console
from hpc_agent.executor.file_server import FileServer
from hpc_agent.executor.interruption import CAUSE_S, Deadline, Interruption
from hpc_agent.executor.prepare import ExecuteOptions, Preparer
from hpc_agent.executor.record import Recorder
from hpc_agent.executor.report import Reporter
from hpc_agent.executor.signals import PreparationInterrupted, Signals
from hpc_agent.executor.stop import StopReason, StopRequest
from hpc_agent.executor.supervise import ProcessSupervisor
from hpc_agent.executor.task_outcome import ExitContext, TaskOutcome, ended, never_started
from hpc_agent.executor.watch import Meters, Watch, WatchResult
from hpc_agent.file_records import CorruptFileError, ensure_directory, private_folder
from hpc_agent.logs import EventLog
from hpc_agent.process import StopTimeouts, Supervised
from hpc_agent.retry import FINAL, ROUTINE
from hpc_agent.runs.attempt_records import MemoryRecord, RequeueBudget
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.current_job import own_job
from hpc_agent.telemetry.gpu_reader import GpuReader
from hpc_agent.telemetry.memory import JobMemory
from hpc_agent.telemetry.shipper import ConsoleSource
from hpc_agent.telemetry.usage import UsageReader

log = EventLog("executor")

FENCE_S = 6.0
"""Four looks of a start that the scheduler took for dead and that still lives: it has ended by then."""
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


class TaskRun:
    """``run_to_end`` once."""

    def __init__(
        self,
        client: Client,
        configuration: Configuration,
        me: AgentIdentity,
        wishes: ExecuteOptions,
        clock: Clock,
        task: Task,
        directory: RunDirectory,
        claimed: Won,
    ) -> None:
        self._client = client
        self._configuration = configuration
        self._settings = configuration.settings
        self._me = me
        self._wishes = wishes
        self._clock = clock
        self._task = task
        self._directory = directory
        self._claimed = claimed
        self._own = own_job(me.job)
        self._policy = self._queue_settings()
        self._stop = StopRequest()
        self._interruption = Interruption(self._own, me.restarts)
        self._deadline = Deadline(self._own, self._policy.signal_ahead, clock)
        self._signals = Signals(self._stop, self._deadline)
        self._memory = JobMemory()
        self._remembered_mb = 0.0
        self._files = FileServer()
        self._reporter = Reporter(client, me, directory, self._own, clock, self._files)

    def run_to_end(self, *, echoes: tuple[IO[bytes], ...], report: bool) -> int:
        """Returns the exit code to end with.

        Raises:
            ServerUnreachableError, AuthError: the server did not let it start; nothing has run, and the daemon puts
                the task back.
        """
        task = self._task
        source = ConsoleSource(task.id, self._me.worker, self._settings.agent.suppress_carriage_return)
        console = Console(
            self._directory,
            source,
            self._client.events,
            self._clock,
            start=self._me.restarts,
            ours=self._still_ours,
            echoes=echoes,
            ship=report,
        )
        with self._signals.handled():
            outcome = self._outcome(console)
            restart = ""
            if outcome.requeue:
                add = partial(self._directory.add_restart, self._me.restarts)
                used = len(self._files.ask(add, RequeueBudget()).of) or "more"
                restart = f"restart {used} of {self._policy.max_restarts}"
            self._reporter.report(task.id, self._claimed.claim, console, outcome, restart)
            return outcome.exit_code

    def _queue_settings(self) -> QueueSettings:
        """Of the queue that the daemon submitted us for."""
        try:
            submission = self._directory.submission()
        except CorruptFileError as error:
            log.warning("no queue settings", error=error)
            submission = None
        return self._settings.hpc.queue(submission.queue_name if submission else "")

    def _still_ours(self) -> bool:
        return still_ours(self._directory, self._claimed.claim)

    def _outcome(self, console: Console) -> TaskOutcome:
        watch = self._watch(console)
        try:
            taken_back = self._start()
            if taken_back:
                return taken_back
            watch.start()
            if self._claimed.silent:
                # Its last lines come before our first.
                with self._signals.unwinding():
                    self._clock.sleep(FENCE_S)
            console.start()
            if self._claimed.resumed:
                console.say(f"Attempt {self._me.restarts + 1}: Slurm started job {self._me.job} again")
            return self._run_process(console)
        except PreparationInterrupted:
            return ended(-signal.SIGTERM, self._met())
        except (ServerUnreachableError, AuthError):
            raise
        except HpcAgentError as error:
            console.say(str(error))
            return never_started(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the task gets its final status
            log.error("execution failed", task=self._task.id, error=error, trace=True)
            words = f"the task could not be run: {type(error).__name__}: {error}"
            console.say(words)
            return never_started(words)
        finally:
            watch.finish()

    def _start(self) -> TaskOutcome | None:
        """Let the server show it as running, and as ours; an outcome if its user took it back just now.

        The stamp comes first: whoever sees the task running can tell whose run it is.

        Raises:
            ServerUnreachableError, AuthError: it could not; the task is as it was.
        """
        task, me = self._task, self._me
        if not self._still_ours():
            return ended(0, ExitContext(StopReason.FENCED))
        values = {"_exec_agent_hostname": me.host, **({"_slurm_job_id": me.job} if me.job else {})}
        budget = ROUTINE if me.watched else FINAL
        try:
            if changed := self._changed(task.status):
                return changed
            self._client.tasks.stamp(task.id, self._stamp, values, budget=budget)
            # Once more: ``tasks.started`` undoes an abort that it does not see, and each call may have waited long.
            if changed := self._changed(task.status):
                return changed
            self._client.tasks.started(
                task.id,
                "worker started execution",
                f"Changed by hpc-agent {me.worker}",
                force=not task.queue,
                budget=budget,
            )
        except AuthError:
            raise
        except ApiError as error:
            return self._refused(error)
        try:
            self._client.workers.report(me.worker, task=task.id, tags=self._settings.agent.tags)
        except HpcAgentError as error:
            log.warning("not introduced", task=task.id, error=error)
        return None

    def _changed(self, before: TaskStatus) -> TaskOutcome | None:
        """What became of the task since our claim, unless it waits for our start as it did."""
        seen = self._client.tasks.get_states([self._task.id]).get(self._task.id)
        if seen is None:
            return ended(0, ExitContext(StopReason.TAKEN_BACK))
        if seen.abort_requested:
            return ended(0, ExitContext(StopReason.ABORT))
        started = seen.status is TaskStatus.IN_PROGRESS and seen.stamp == self._stamp
        if started or seen.status in (before, TaskStatus.UNKNOWN):
            return None
        return ended(0, ExitContext(StopReason.TAKEN_BACK))

    def _refused(self, error: ApiError) -> TaskOutcome:
        """
        Raises:
            ServerUnreachableError: the task still waits for its start, and its daemon puts it back.
        """
        log.warning("not started", task=self._task.id, error=error)
        try:
            changed = self._changed(self._task.status)
        except ApiError:
            changed = None
        if changed is not None:
            return changed
        if self._me.watched:
            raise ServerUnreachableError(f"the server did not let it start: {error}", uncertain=False) from error
        return never_started(f"the server did not let it start: {error}")

    @property
    def _stamp(self) -> str:
        return f"{self._directory.attempt.id}.{self._me.restarts}"

    def _watch(self, console: Console) -> Watch:
        task = self._task
        return Watch(
            self._client,
            WatchResult(
                task.id,
                self._me.worker,
                self._stamp,
                [task.queue] if task.queue else [],
                self._still_ours,
                self._settings.agent.tags,
            ),
            self._stop,
            self._clock,
            ping_interval=self._settings.agent.task_ping_interval_sec,
            callback_limit=self._settings.agent.abort_callback_max_timeout,
            meters=Meters(UsageReader(self._clock, GpuReader(visible_gpus(os.environ))), self._look_at_memory),
            # The main thread may sit in git or an installer.
            wake=self._signals.wake,
            say=console.say,
        )

    def _run_process(self, console: Console) -> TaskOutcome:
        directory = self._directory
        name = f"{directory.attempt.job_name}.{self._me.restarts}"
        workdir = private_folder(self._settings.hpc.scratch) / "work" / name
        ensure_directory(workdir, mode=0o700)
        try:
            with self._signals.unwinding():
                me, raw = self._me.worker, self._client.tasks.raw
                preparer = Preparer(self._configuration, me, self._wishes, self._clock, console.say, raw)
                ready = preparer.prepare(self._task, directory, workdir)
            recorder = Recorder(self._client, self._task, ready.used)
            try:
                if not self._begin():
                    return ended(0, ExitContext(StopReason.FENCED))
                child = Supervised(
                    ready.argv,
                    env=ready.environ,
                    cwd=ready.cwd,
                    output=console.sink,
                    forwards_signals=ready.forwards_signals,
                )
                recorder.start()
                supervisor = self._supervisor(child, console)
                code = supervisor.run()
                # A task that came to its good end by itself is not run again because its job was told to end just then.
                done = code == 0 and supervisor.by_itself and self._files.ask(self._still_ours, True)
                outcome = ended(code, ExitContext() if done else self._met(code, console.trouble))
                self._reporter.note(self._claimed.claim, outcome)
                recorder.finish()
            finally:
                ready.end()
        finally:
            shutil.rmtree(workdir, ignore_errors=True)
        return outcome

    def _begin(self) -> bool:
        """Write down that the user's process may run from now on; False if the task is no longer ours."""
        if not self._still_ours():
            return False
        try:
            self._directory.write_claim(msgspec.structs.replace(self._claimed.claim, begun=True))
        except OSError as error:
            log.error("claim not written", directory=self._directory.path, error=error)
        return True

    def _supervisor(self, child: Supervised, console: Console) -> ProcessSupervisor:
        return ProcessSupervisor(
            child,
            console.say,
            self._stop,
            self._interruption,
            self._deadline,
            self._clock,
            StopTimeouts(term=self._settings.hpc.term_grace),
            signal.Signals[f"SIG{self._policy.signal}"],
        )

    def _met(self, code: int | None = None, file_trouble: str = "") -> ExitContext:
        """What else is known of an end, with ``code`` if the process ran."""
        why, policy = self._stop.why, self._policy
        cause = self._interruption.cause(CAUSE_S) if why is StopReason.SIGNAL else None
        job = self._interruption.job
        limit, ran_for = self._deadline.limit, self._deadline.ran_for()
        restarts = len(self._files.ask(self._directory.restarts, RequeueBudget()).of)
        requeues = self._me.watched and policy.on_time_limit == "requeue"
        return ExitContext(
            why=why,
            cause=cause,
            watched=self._me.watched,
            limit=limit if limit is not None else job.time_limit if job else None,
            ran_for=ran_for if ran_for is not None else job.ran_for if job else None,
            may_requeue=requeues and restarts < policy.max_restarts,
            restarts=restarts if requeues else 0,
            out_of_memory=self._out_of_memory(code) if why is None and code else "",
            file_trouble=file_trouble,
        )

    def _out_of_memory(self, code: int) -> str:
        memory = self._memory
        if memory.has_run_out() or (code in _KILLED and memory.is_short):
            return out_of_memory(memory.peak_mb, memory.limit_mb)
        return ""

    def _look_at_memory(self) -> None:
        """Written down for the daemon, if we are killed along with the task."""
        self._memory.look()
        peak = self._memory.peak_mb
        if peak > 1.05 * self._remembered_mb:
            self._remembered_mb = peak
            self._directory.write_memory(MemoryRecord(used_mb=peak, limit_mb=self._memory.limit_mb))
