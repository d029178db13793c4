"""Carries out what ``domain.decide`` found due. Each action is small and may be repeated after a death in it."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.facts import Files
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.decide import (
    Adopt,
    Cancel,
    LookUp,
    PutBack,
    Refuse,
    Say,
    Settle,
)
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.verdict import in_one_line
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import Events
from hpc_agent.retry import INTERACTIVE, ONCE
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.runs.records import Claim, ExitReport, Settled
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.telemetry.shipper import Shipper, Source
from hpc_agent.telemetry.spool import Spool
from hpc_agent.wire.event import log_event

log = Events("act")

SAY_EVERY_S = 20.0
"""How often a waiting task's status message may change; its first one comes at once."""


class Actor:
    """Everything but submitting, which ``daemon.submit`` does."""

    def __init__(
        self, client: Client, scheduler: Scheduler, settings: AllSettings, worker: WorkerId, clock: Clock
    ) -> None:
        self._client = client
        self._scheduler = scheduler
        self._settings = settings
        self._worker = worker
        self._clock = clock
        self._said: dict[Attempt, tuple[str, float]] = {}

    @property
    def _message(self) -> str:
        return f"Changed by hpc-agent {self._worker}"

    def cancel(self, attempt: Attempt, action: Cancel) -> None:
        log.info("cancelling", task=attempt.task, job=action.job, why=action.why)
        self._scheduler.cancel([action.job], only_pending=action.only_pending)

    def say(self, attempt: Attempt, action: Say) -> None:
        text, at = self._said.get(attempt, ("", float("-inf")))
        now = self._clock.monotonic()
        if action.message != text and now - at >= SAY_EVERY_S:
            self._client.tasks.say(attempt.task, action.message, budget=ONCE)
            self._said[attempt] = action.message, now
        if action.ping:
            self._client.tasks.ping(attempt.task, budget=ONCE)

    def adopt(self, files: Files, action: Adopt) -> None:
        assert files.submission is not None
        log.info("found the job of an uncertain submission", attempt=files.directory.attempt.id, job=action.job)
        files.directory.write_submission(msgspec.structs.replace(files.submission, state="accepted", job=action.job))

    def look_up(self, attempt: Attempt, files: Files, action: LookUp) -> bool:
        """Search for a job that may or may not exist; True if there is none and it is time to submit again."""
        assert files.submission is not None
        job = self._scheduler.find(attempt.job_name, files.submission.at)
        if job is not None:
            self.adopt(files, Adopt(job))
            return False
        return action.give_up

    def finish(self, attempt: Attempt, files: Files) -> None:
        """Post what the executor could not."""
        assert files.report is not None
        if self._ship_rest(attempt, files):
            self._post(attempt, TaskStatus(files.report.status), files.report.reason)
            files.directory.write_exit_report(msgspec.structs.replace(files.report, posted=True))
            self.close(attempt, files.directory, "finished for its job")

    def settle(self, attempt: Attempt, files: Files, action: Settle) -> None:
        """Post a verdict. The report is written first, so that a death here is mended by ``finish``."""
        directory = files.directory
        spool = Spool(directory.console, directory.console_offset)
        spool.write(f"{action.reason}\n".encode())
        spool.close()
        report = ExitReport(
            status="stopped" if action.status is TaskStatus.STOPPED else "failed",
            reason=action.reason,
            exit_code=1,
            at=self._clock.now(),
        )
        directory.write_exit_report(report)
        log.info("settling", task=attempt.task, status=report.status, reason=action.reason)
        self.finish(attempt, replace(files, report=report))

    def _ship_rest(self, attempt: Attempt, files: Files) -> bool:
        directory = files.directory
        worker = WorkerId(files.claim.worker) if files.claim and files.claim.worker else self._worker
        source = Source(attempt.task, worker, self._settings.agent.suppress_carriage_return)
        spool = Spool(directory.console, directory.console_offset)
        return Shipper(spool, source, self._client.events, self._clock).drain(ONCE)

    def _post(self, attempt: Attempt, status: TaskStatus, reason: str, *, force: bool = False) -> None:
        tasks = self._client.tasks
        if status is TaskStatus.COMPLETED:
            tasks.completed(attempt.task, reason, self._message, budget=INTERACTIVE)
        elif status is TaskStatus.STOPPED:
            tasks.stopped(attempt.task, reason, self._message, budget=INTERACTIVE, force=force)
        else:
            tasks.failed(attempt.task, reason, self._message, budget=INTERACTIVE, force=force)

    def put_back(self, attempt: Attempt, files: Files, action: PutBack) -> None:
        """Only if it is in no queue: its user may have enqueued it anew meanwhile."""
        assert files.claim is not None
        queue = QueueId(files.claim.queue or (files.submission.queue if files.submission else ""))
        if self._client.queues.holding(attempt.task) is None:
            log.warning("back to the queue", task=attempt.task, queue=queue, why=action.why)
            self._client.queues.put_first(queue, attempt.task, action.why)
        self.close(attempt, files.directory, "back in its queue")

    def refuse(self, attempt: Attempt, directory: RunDirectory, queue: Queue, action: Refuse) -> None:
        """Take the task off its queue, as a job would, and give it its final status and the reason."""
        directory.create()
        host = socket.gethostname()
        intent = Claim(
            state="intent",
            at=self._clock.now(),
            owner=f"agent:{host}:{os.getpid()}",
            queue=queue.id,
            host=host,
            worker=self._worker,
        )
        if not directory.first_claim(intent):
            return  # a job came first
        if not self._client.queues.remove_task(queue.id, attempt.task):
            directory.drop_claim()
            return
        directory.write_claim(msgspec.structs.replace(intent, state="won"))
        log.warning("refused", task=attempt.task, queue=queue.name, reason=action.reason)
        self._tell(attempt, action.reason)
        self._post(attempt, action.status, in_one_line(action.reason), force=True)
        self.close(attempt, directory, action.reason)

    def _tell(self, attempt: Attempt, line: str) -> None:
        """A line in the task's console, where its user looks first."""
        stamp = int(self._clock.now().timestamp() * 1000)
        try:
            self._client.events.add(
                [log_event(attempt.task, self._worker, f"{line}\n", stamp, level="ERROR")], budget=ONCE
            )
        except HpcAgentError as error:
            log.warning("console line not stored", task=attempt.task, error=error)

    def close(self, attempt: Attempt, directory: RunDirectory, why: str) -> None:
        if directory.names():
            directory.write_settled(Settled(at=self._clock.now(), why=why))
        self._said.pop(attempt, None)
        log.info("closed", task=attempt.task, attempt=attempt.id, why=why)
