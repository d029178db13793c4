"""The last words of a run: exit report, rest of the console, final status; in this order, so that whoever comes after
us can finish."""

from __future__ import annotations

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import AuthError, HpcAgentError
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.executor.claim import still_ours
from hpc_agent.executor.console import Console
from hpc_agent.executor.file_server import FileServer
from hpc_agent.executor.task_outcome import TaskOutcome
from hpc_agent.logs import EventLog
from hpc_agent.retry import FINAL, ONCE, Budget, retry
from hpc_agent.runs.attempt_records import ClaimRecord, ExitReport
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.base import CurrentJobClient

log = EventLog("report")

WATCHED = Budget(60)
"""A server that is away holds no node for longer: the daemon finishes what is left."""
INTERRUPTED = Budget(5)
"""The scheduler's patience has begun to run."""


class Reporter:
    def __init__(
        self,
        client: Client,
        me: AgentIdentity,
        directory: RunDirectory,
        own: CurrentJobClient,
        clock: Clock,
        files: FileServer | None = None,
    ) -> None:
        self._client = client
        self._me = me
        self._directory = directory
        self._own = own
        self._clock = clock
        self._files = files or FileServer()

    def note(self, claim: ClaimRecord, outcome: TaskOutcome) -> ExitReport | None:
        """Keep on disk how it ended, whatever becomes of us from here on; None where somebody else has the task.

        A file server that stalls gets it later: the final status does not wait for that.
        """
        if outcome.fenced or not self._files.ask(lambda: still_ours(self._directory, claim), True):
            return None
        report = ExitReport(
            status=outcome.status,
            reason=outcome.reason,
            exit_code=outcome.exit_code,
            at=self._clock.now(),
            last_line=outcome.last_line,
            cause=outcome.cause,
        )
        self._files.ask(lambda: self._write(claim, report), None)
        return report

    def report(
        self, task: TaskId, claim: ClaimRecord, console: Console, outcome: TaskOutcome, restart: str = ""
    ) -> None:
        """Say how it ended, wherever somebody listens. Nothing here fails the run any more.

        ``restart`` counts the job's next start, if it gets one: "restart 1 of 3".
        """
        report = self.note(claim, outcome)
        if report is None:
            log.warning("somebody else has the task now, leaving without a word", task=task)
            console.drop()
            return
        console.say(outcome.last_line)
        if outcome.requeue:
            # First: a server that does not answer must not cost the task its next start.
            console.say(self._requeue(task, restart))
        sent = console.finish(INTERRUPTED if outcome.cause else WATCHED)
        if outcome.cause is not None:
            log.info("told to end", task=task, job=self._me.job, cause=outcome.cause.value)
            self._leave()
            return
        if not sent and not self._answers(task):
            log.warning("the server does not answer, its daemon says how it ended", task=task)
            return
        # Who waits for a final status reads the console then: it comes first where the whole server was away.
        sent = sent or console.finish(INTERRUPTED)
        budget = WATCHED if self._me.watched else FINAL
        if self._post(task, outcome, budget) and (sent or self._sends_late(console)):
            posted = msgspec.structs.replace(report, posted=True)
            self._files.ask(lambda: self._write(claim, posted), None)
        self._leave()

    def _answers(self, task: TaskId) -> bool:
        """Whether the server answers: at once where a daemon goes on from here, else within the longest budget. One
        that takes no console and answers all else does."""
        try:
            # A proxy's 401 passes like its 502.
            retry(
                lambda: self._client.tasks.get_states([task], budget=ONCE),
                ONCE if self._me.watched else FINAL,
                self._clock,
                again=lambda _error: True,
            )
        except HpcAgentError as error:
            log.warning("no answer", task=task, error=error)
            return False
        return True

    def _sends_late(self, console: Console) -> bool:
        """A status does not wait for a console that the server would not take; without a daemon only we send that."""
        return not self._me.watched and console.finish(FINAL)

    def _write(self, claim: ClaimRecord, report: ExitReport) -> None:
        """Where the run directory was deleted meanwhile it is made again, so that the daemon finds the task's end."""
        directory = self._directory
        try:
            directory.create()
            if directory.claim() is None:
                directory.write_claim(claim)
            directory.write_exit_report(report)
        except (OSError, HpcAgentError) as error:
            log.error("exit report not written", directory=directory.path, error=error)

    def _requeue(self, task: TaskId, restart: str) -> str:
        said = self._own.requeue()
        if not said:
            return f"Job {self._me.job} is started again ({restart})"
        log.warning("not requeued, the daemon puts the task back", task=task, said=said)
        return f"Job {self._me.job} cannot be started again ({said}): its daemon puts the task back into its queue"

    def _post(self, task: TaskId, outcome: TaskOutcome, budget: Budget) -> bool:
        if outcome.status == "none":
            return True
        try:
            # A proxy's 401 passes like its 502: of all calls this one must not be lost to it.
            retry(
                lambda: self._conclude(task, outcome, budget),
                budget,
                self._clock,
                again=lambda error: isinstance(error, AuthError),
            )
        except HpcAgentError as error:
            log.error("final status not posted", task=task, status=outcome.status, error=error)
            return False
        return True

    def _conclude(self, task: TaskId, outcome: TaskOutcome, budget: Budget) -> None:
        if self._runs_anew(task):
            log.warning("another run has the task now, its status stays", task=task)
            return
        tasks, status = self._client.tasks, TaskStatus(outcome.status)
        done = tasks.set_final_status(task, status, outcome.reason, self._me.worker, budget=budget)
        if not done and not outcome.started and self._waits_for_us(task):
            # It failed before the server showed it as running, and the usual steps lead through that.
            tasks.set_final_status(task, status, outcome.reason, self._me.worker, budget=budget, force=True)

    def _runs_anew(self, task: TaskId) -> bool:
        """Whether it was reset and started again, while we waited for a server or wound down."""
        seen = self._client.tasks.get_states([task]).get(task)
        return seen is not None and seen.run_token.partition(".")[0] not in ("", self._directory.attempt.id)

    def _waits_for_us(self, task: TaskId) -> bool:
        """Whether it is still queued, and in no queue: nobody but us would ever start it."""
        seen = self._client.tasks.get_states([task]).get(task)
        queued = seen is not None and seen.status is TaskStatus.QUEUED
        return queued and self._client.queues.queue_of(task) is None

    def _leave(self) -> None:
        try:
            self._client.workers.unregister(self._me.worker)
        except HpcAgentError as error:
            log.debug("not unregistered", error=error)
