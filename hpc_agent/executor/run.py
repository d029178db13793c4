"""One task on one node: claim → prepare → supervise → report."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.load import Configuration
from hpc_agent.domain.gpus import visible_gpus
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task
from hpc_agent.errors import ApiError, HpcAgentError
from hpc_agent.executor.claim import Claimer, Lost, Won
from hpc_agent.executor.console import Console
from hpc_agent.executor.identity import Identity
from hpc_agent.executor.outcome import Outcome, ended, never_started
from hpc_agent.executor.prepare import Preparer, Wishes
from hpc_agent.executor.record import Recorder
from hpc_agent.executor.stop import StopRequest, Why
from hpc_agent.executor.supervise import Supervisor
from hpc_agent.executor.watch import Watch
from hpc_agent.files import ensure_directory, private_folder
from hpc_agent.logs import Events
from hpc_agent.process import Grace, Supervised
from hpc_agent.retry import Budget
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.runs.records import ExitReport
from hpc_agent.telemetry.gpus import GpuReader
from hpc_agent.telemetry.shipper import Source
from hpc_agent.telemetry.usage import UsageReader

log = Events("executor")

LAST_WORDS = Budget(300)
"""For the rest of the log and the final status. A dead server holds no GPU longer: a daemon finishes what is left."""


@dataclass(frozen=True)
class Options:
    """The flags of ``execute``, beside those that shape the process."""

    require_queue: bool = False
    report: bool = True
    """False with ``--disable-monitoring``: the console goes to standard output only."""
    echoes: tuple[IO[bytes], ...] = ()


_OTHER_STATUS = 110
"""ClearML's subcode for a transition that the task's present status does not allow."""


class _Unwind(BaseException):
    """Raised by the signal handler to leave the preparation; never leaves this module."""


class Execution:
    """``run`` once."""

    def __init__(
        self,
        client: Client,
        configuration: Configuration,
        me: Identity,
        wishes: Wishes,
        options: Options,
        clock: Clock,
    ) -> None:
        self._client = client
        self._configuration = configuration
        self._settings = configuration.settings
        self._me = me
        self._wishes = wishes
        self._options = options
        self._clock = clock
        self._stop = StopRequest()
        self._preparing = False

    def run(self, task_id: TaskId) -> int:
        """Claim and run the task; returns the exit code to end with (0 if it is not ours to run).

        Raises:
            NotFoundError, InputError, ServerUnreachableError: nothing was started.
        """
        task = self._client.tasks.get(task_id)
        directory = self._directory(task)
        claimed = Claimer(self._client, directory, self._me, self._clock).claim(
            task, require_queue=self._options.require_queue
        )
        if isinstance(claimed, Lost):
            log.info("leaving the task alone", task=task_id, why=claimed.why)
            return 0
        console = self._console(task, directory)
        with self._signals():
            if not self._begin(task, claimed):
                return 0
            outcome = self._start_and_run(task, directory, console, claimed)
            return self._report(task, directory, console, outcome)

    def _begin(self, task: Task, claimed: Won) -> bool:
        """Set the task started; False if its user took it back since it was claimed.

        Raises:
            ServerUnreachableError: the claim stands without a start; a daemon puts the task back into its queue.
        """
        if claimed is Won.FRESH and task.status is TaskStatus.QUEUED:
            seen = self._client.tasks.glimpse([task.id]).get(task.id)
            if seen is None or seen.status is not TaskStatus.QUEUED:
                log.info("leaving the task alone", task=task.id, why="it was taken back meanwhile")
                return False
        self._client.tasks.started(task.id, "worker started execution", self._message(), force=not task.queue)
        return True

    def _directory(self, task: Task) -> RunDirectory:
        queue = None if self._me.watched else self._client.queues.holding(task.id)
        return self._me.directory(RunsFolder(self._settings.hpc.runs), task.id, queue)

    def _console(self, task: Task, directory: RunDirectory) -> Console:
        source = Source(task.id, self._me.worker, self._settings.agent.suppress_carriage_return)
        return Console(
            directory,
            source,
            self._client.events,
            self._clock,
            echoes=self._options.echoes,
            ship=self._options.report,
        )

    def _start_and_run(self, task: Task, directory: RunDirectory, console: Console, claimed: Won) -> Outcome:
        watch = self._watch(task)
        try:
            self._introduce(task)
            watch.start()
            console.start()
            if claimed is Won.RESUMED:
                console.say(f"Attempt {self._me.restarts + 1}: Slurm started job {self._me.job} again")
            return self._run_process(task, directory, console)
        except _Unwind:
            return ended(-signal.SIGTERM, self._stop.why)
        except HpcAgentError as error:
            console.say(str(error))
            return never_started(str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the task gets its final status
            log.error("execution failed", task=task.id, error=error, trace=True)
            words = f"the task could not be run: {type(error).__name__}: {error}"
            console.say(words)
            return never_started(words)
        finally:
            watch.finish()

    def _message(self) -> str:
        return f"Changed by hpc-agent {self._me.worker}"

    def _introduce(self, task: Task) -> None:
        """Be seen on the server. A task runs without it too."""
        values = {"_exec_agent_hostname": self._me.host, **({"_slurm_job_id": self._me.job} if self._me.job else {})}
        try:
            self._client.tasks.add_runtime(task.id, values)
            self._client.workers.report(self._me.worker, task=task.id, tags=self._settings.agent.tags)
        except HpcAgentError as error:
            log.warning("not introduced", task=task.id, error=error)

    def _watch(self, task: Task) -> Watch:
        return Watch(
            self._client,
            task.id,
            self._me.worker,
            [task.queue] if task.queue else [],
            self._stop,
            self._clock,
            ping_interval=self._settings.agent.task_ping_interval_sec,
            usage=UsageReader(self._clock, GpuReader(visible_gpus(os.environ))),
            # The main thread may sit in git or an installer: its signal handler brings it out.
            wake=lambda: os.kill(os.getpid(), signal.SIGTERM),
            tags=self._settings.agent.tags,
        )

    def _run_process(self, task: Task, directory: RunDirectory, console: Console) -> Outcome:
        workdir = private_folder(self._settings.hpc.scratch) / "work" / directory.attempt.job_name
        ensure_directory(workdir, mode=0o700)
        try:
            with self._unwinding():
                me, raw = self._me.worker, self._client.tasks.raw
                preparer = Preparer(self._configuration, me, self._wishes, self._clock, console.say, raw)
                ready = preparer.prepare(task, directory, workdir)
            recorder = Recorder(self._client, task, ready.used)
            try:
                child = Supervised(ready.argv, env=ready.environ, cwd=ready.cwd, output=console.sink)
                recorder.start()
                grace = Grace(term=self._settings.hpc.term_grace)
                code = Supervisor(child, console.say, self._stop, self._clock, grace).run()
                recorder.finish()
            finally:
                ready.end()
        finally:
            shutil.rmtree(workdir, ignore_errors=True)
        return ended(code, self._stop.why)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """From here on SIGTERM and Ctrl-C end the task, not us."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop.ask(Why.INTERRUPT if number == signal.SIGINT else Why.SIGNAL)
        if self._preparing:
            self._preparing = False
            raise _Unwind

    @contextmanager
    def _unwinding(self) -> Iterator[None]:
        """A part that a stop leaves by exception, because it waits for git or an installer."""
        self._preparing = True
        try:
            if self._stop.why is not None:
                raise _Unwind
            yield
        finally:
            self._preparing = False

    def _report(self, task: Task, directory: RunDirectory, console: Console, outcome: Outcome) -> int:
        """Exit report, rest of the console, final status; in this order, so that whoever comes after us can finish."""
        console.say(outcome.last_line)
        report = ExitReport(
            status=outcome.status,
            reason=outcome.reason,
            exit_code=outcome.exit_code,
            at=self._clock.now(),
            interrupted=outcome.interrupted,
        )
        self._write(directory, report)
        sent = console.finish(LAST_WORDS)
        if outcome.interrupted and self._me.watched:
            # Slurm may start this job again, and knows why it told us to end: the daemon asks it.
            log.info("interrupted", task=task.id, job=self._me.job)
        elif self._post(task, outcome) and sent:
            self._write(directory, msgspec.structs.replace(report, posted=True))
        self._leave()
        return outcome.exit_code

    def _write(self, directory: RunDirectory, report: ExitReport) -> None:
        """A full disk must not keep the final status from the server."""
        try:
            directory.write_exit_report(report)
        except OSError as error:
            log.error("exit report not written", task=directory.attempt.task, error=error)

    def _post(self, task: Task, outcome: Outcome) -> bool:
        tasks = self._client.tasks
        post = {"completed": tasks.completed, "failed": tasks.failed, "stopped": tasks.stopped}.get(outcome.status)
        if post is None:
            return True
        try:
            post(task.id, outcome.reason, self._message(), budget=LAST_WORDS)
        except HpcAgentError as error:
            if not (isinstance(error, ApiError) and error.subcode == _OTHER_STATUS):
                log.error("final status not posted", task=task.id, status=outcome.status, error=error)
                return False
            log.info("the task has another status already", task=task.id, error=error)
        return True

    def _leave(self) -> None:
        try:
            self._client.workers.unregister(self._me.worker)
        except HpcAgentError as error:
            log.debug("not unregistered", error=error)
