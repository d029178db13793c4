"""Actor: carries out the actions of ``domain.decide``. Each is small and may be repeated after a crash in it."""

from __future__ import annotations

import os
import socket

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.conclude import Concluder
from hpc_agent.daemon.run_state import RunDirectoryState
from hpc_agent.domain.actions import (
    AdoptJob,
    CancelJob,
    FindByName,
    MarkDone,
    RejectTask,
    ReleaseJob,
    SetStatusMessage,
)
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import WorkerId
from hpc_agent.domain.outcome import in_one_line
from hpc_agent.domain.queue import Queue
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE
from hpc_agent.runs.attempt_records import ClaimRecord, DoneRecord, ExitReport
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.base import ANY_CLOCK, Scheduler

log = EventLog("act")


class Actor:
    """Carries out all actions but submissions, which ``Submitter`` does."""

    def __init__(
        self, client: Client, scheduler: Scheduler, settings: AllSettings, worker: WorkerId, clock: Clock
    ) -> None:
        self._client = client
        self._scheduler = scheduler
        self._worker = worker
        self._clock = clock
        self.concluder = Concluder(client, settings, worker, clock)
        self._message_interval = settings.hpc.wait_message_interval
        self._shown: dict[Attempt, tuple[SetStatusMessage, float]] = {}

    def cancel(self, attempt: Attempt, action: CancelJob) -> None:
        """Cancel a job of the snapshot: it is listed under the attempt's name, has claimed the task itself, or has the
        id that sbatch answered, was submitted then, and was renamed since (``ExpectedJob.is_renamed``)."""
        log.info("job.cancelled", task=attempt.task, job=action.job, why=action.why)
        self._scheduler.cancel([action.job], only_pending=action.only_pending)

    def release(self, attempt: Attempt, action: ReleaseJob) -> None:
        log.warning("job.released", task=attempt.task, job=action.job)
        self._scheduler.release([action.job])

    def set_status_message(self, attempt: Attempt, action: SetStatusMessage, directory: RunDirectory) -> None:
        before, at = self._shown.get(attempt, (SetStatusMessage(""), float("-inf")))
        now = self._clock.monotonic()
        # A word of another kind, that it was requeued or is stuck, does not wait for its turn.
        is_turn = now - at >= self._message_interval or (before.ping, before.console) != (action.ping, action.console)
        if action.message != before.message and is_turn:
            self._show(attempt, action)
            self._shown[attempt] = action, now
        if action.ping:
            self._client.tasks.ping(attempt.task, budget=ONCE)
        if action.console and directory.names():
            self.concluder.add_console_line(attempt, directory, action.console)

    def forget_message(self, attempt: Attempt) -> None:
        """The next message does not wait for its turn: the last one was about what is over now."""
        self._shown.pop(attempt, None)

    def show_error(self, attempt: Attempt, message: str) -> None:
        """A status message that does not wait for its turn: something is wrong."""
        before, _ = self._shown.get(attempt, (SetStatusMessage(""), 0.0))
        if message != before.message:
            self._client.tasks.set_status_message(attempt.task, message, budget=ONCE)
            self._shown[attempt] = SetStatusMessage(message), self._clock.monotonic()

    def _show(self, attempt: Attempt, action: SetStatusMessage) -> None:
        if action.ping:
            # An abort is a status message of the running task until an agent obeys it: it must not be overwritten.
            seen = self._client.tasks.get_states([attempt.task], budget=ONCE).get(attempt.task)
            if seen is None or seen.abort_requested:
                return
        self._client.tasks.set_status_message(attempt.task, action.message, budget=ONCE)

    def adopt(self, files: RunDirectoryState, action: AdoptJob) -> None:
        assert files.submission is not None
        log.info("job.found", attempt=files.directory.attempt.id, job=action.job)
        files.directory.write_submission(msgspec.structs.replace(files.submission, state="accepted", job=action.job))

    def find_by_name(self, attempt: Attempt, files: RunDirectoryState, action: FindByName) -> bool:
        """Search for a job that may or may not exist; True if there is none and it is time to act on that."""
        assert files.submission is not None
        # No job had this name before the first submission; before another one there was one that ended.
        record = files.submission
        job = self._scheduler.find(attempt.job_name, record.at - ANY_CLOCK if record.submit_count == 1 else record.at)
        if job is not None:
            self.adopt(files, AdoptJob(job))
            return False
        if record.looked_at is None:
            looked = msgspec.structs.replace(record, looked_at=self._clock.now())
            files.directory.write_submission(looked)
        return action.give_up

    def reject(self, attempt: Attempt, directory: RunDirectory, queue: Queue, action: RejectTask) -> None:
        """Take the task off its queue, as a job would, and give it its final status and the reason."""
        directory.create()
        host = socket.gethostname()
        intent = ClaimRecord(
            state="intent",
            at=self._clock.now(),
            owner=f"daemon:{host}:{os.getpid()}",
            queue=queue.id,
            cluster=self._scheduler.cluster(),
            host=host,
            pid=os.getpid(),
            worker=self._worker,
        )
        if not directory.first_claim(intent):
            before = directory.claim()
            if before is None or not before.owner.startswith("daemon:") or before.state != "intent":
                return  # a job came first
            # A daemon died in a refusal before the removal: the queue still holds the task.
        if not self._client.queues.remove_task(queue.id, attempt.task):
            directory.drop_claim()
            return
        claim = msgspec.structs.replace(intent, state="won")
        directory.write_claim(claim)
        log.warning("task.rejected", task=attempt.task, queue=queue.name, reason=action.reason)
        reason = in_one_line(action.reason)
        report = ExitReport(
            status="stopped" if action.status.value == "stopped" else "failed",
            reason=reason,
            exit_code=1,
            at=self._clock.now(),
            last_line=action.reason,
        )
        directory.write_exit_report(report)
        self.concluder.publish_exit_report(attempt, RunDirectoryState(directory, directory.submission(), claim, report))

    def mark_done(self, attempt: Attempt, files: RunDirectoryState, action: MarkDone) -> bool:
        """Mark it settled; False while the rest of its console is not sent."""
        directory = files.directory
        if action.ship and not self.concluder.ship(attempt, files):
            return False
        if directory.names():
            directory.write_settled(DoneRecord(at=self._clock.now(), why=action.why))
            goes_on = files.report.status == "again" if files.report else directory.has_rival()
            if not goes_on:
                directory.reset_requeue_budget()
        self._shown.pop(attempt, None)
        ended = {"status": files.report.status, "reason": files.report.reason} if files.report else {}
        log.info("attempt.done", task=attempt.task, attempt=attempt.id, why=action.why, **ended)
        return True
