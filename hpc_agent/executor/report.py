"""The last words of a run: exit report, rest of the console, final status; in this order, so that whoever comes after
us can finish."""

from __future__ import annotations

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import TaskId
from hpc_agent.errors import ApiError, AuthError, HpcAgentError
from hpc_agent.executor.claim import still_ours
from hpc_agent.executor.console import Console
from hpc_agent.executor.identity import Identity
from hpc_agent.executor.outcome import Outcome
from hpc_agent.logs import Events
from hpc_agent.retry import FINAL, Budget, retry
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.runs.records import Claim, ExitReport
from hpc_agent.schedulers.base import OwnJobs

log = Events("report")

WATCHED = Budget(60)
"""A server that is away holds no node for longer: the daemon finishes what is left."""
INTERRUPTED = Budget(5)
"""The scheduler's patience has begun to run."""

_OTHER_STATUS = 110
"""ClearML's subcode for a transition that the task's present status does not allow."""


class Reporter:
    def __init__(self, client: Client, me: Identity, directory: RunDirectory, own: OwnJobs, clock: Clock) -> None:
        self._client = client
        self._me = me
        self._directory = directory
        self._own = own
        self._clock = clock

    def report(self, task: TaskId, claim: Claim, console: Console, outcome: Outcome) -> None:
        """Say how it ended, wherever somebody listens. Nothing here fails the run any more."""
        if outcome.fenced or not still_ours(self._directory, claim):
            log.warning("somebody else has the task now, leaving without a word", task=task)
            console.drop()
            return
        report = ExitReport(
            status=outcome.status,
            reason=outcome.reason,
            exit_code=outcome.exit_code,
            at=self._clock.now(),
            last_line=outcome.last_line,
            cause=outcome.cause,
        )
        self._write(claim, report)
        console.say(outcome.last_line)
        budget = INTERRUPTED if outcome.cause else WATCHED if self._me.watched else FINAL
        sent = console.finish(budget)
        if outcome.cause is not None:
            log.info("told to end", task=task, job=self._me.job, cause=outcome.cause.value)
            if outcome.requeue:
                self._requeue(task)
        elif self._post(task, outcome, budget) and sent:
            self._write(claim, msgspec.structs.replace(report, posted=True))
        self._leave()

    def _write(self, claim: Claim, report: ExitReport) -> None:
        """Where the run directory was deleted meanwhile it is made again, so that the daemon finds the task's end."""
        directory = self._directory
        try:
            directory.create()
            if directory.claim() is None:
                directory.write_claim(claim)
            directory.write_exit_report(report)
        except (OSError, HpcAgentError) as error:
            log.error("exit report not written", directory=directory.path, error=error)

    def _requeue(self, task: TaskId) -> None:
        said = self._own.requeue()
        if said:
            log.warning("not requeued, the daemon puts the task back", task=task, said=said)

    def _post(self, task: TaskId, outcome: Outcome, budget: Budget) -> bool:
        tasks = self._client.tasks
        post = {"completed": tasks.completed, "failed": tasks.failed, "stopped": tasks.stopped}.get(outcome.status)
        if post is None:
            return True
        message = f"Changed by hpc-agent {self._me.worker}"
        try:
            # A proxy's 401 passes like its 502: of all calls this one must not be lost to it.
            retry(
                lambda: post(task, outcome.reason, message, budget=budget),
                budget,
                self._clock,
                again=lambda error: isinstance(error, AuthError),
            )
        except HpcAgentError as error:
            if not (isinstance(error, ApiError) and error.subcode == _OTHER_STATUS):
                log.error("final status not posted", task=task, status=outcome.status, error=error)
                return False
            log.info("the task has another status already", task=task, error=error)
        return True

    def _leave(self) -> None:
        try:
            self._client.workers.unregister(self._me.worker)
        except HpcAgentError as error:
            log.debug("not unregistered", error=error)
