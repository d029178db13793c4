"""Conclusion of a run that its executor left to the daemon: rest of the console, final status, or requeue."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.nodes import BadNodes
from hpc_agent.daemon.run_state import RunDirectoryState, run_owner
from hpc_agent.domain.actions import Requeue, SetFinalStatus
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.domain.outcome import in_one_line
from hpc_agent.domain.snapshot import RunOwner
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import NotFoundError, ServerUnreachableError
from hpc_agent.logs import EventLog
from hpc_agent.retry import INTERACTIVE, ONCE
from hpc_agent.runs import node_files
from hpc_agent.runs.attempt_records import ExitReport
from hpc_agent.runs.directory import ConsoleFiles, RunDirectory, RunsFolder
from hpc_agent.telemetry.shipper import ConsoleSource, Shipper
from hpc_agent.telemetry.spool import Spool
from hpc_agent.wire.error_kinds import INVALID_QUEUE_ID

log = EventLog("conclude")

CONSOLE_PATIENCE_S = 300.0
"""How long a final status, or a requeue, waits for a server that does not accept the rest of the console."""


class Concluder:
    """Concluder of runs. A decision is recorded before it is carried out, so that a crash loses nothing."""

    def __init__(self, client: Client, settings: AllSettings, worker: WorkerId, clock: Clock) -> None:
        self._client = client
        self._settings = settings
        self._worker = worker
        self._clock = clock
        self._nodes = BadNodes(RunsFolder(settings.hpc.runs).nodes, clock)

    def add_console_line(self, attempt: Attempt, directory: RunDirectory, line: str) -> None:
        """A line of the daemon's own in the task's console, where its user looks first; the same one only once."""
        self._note(directory, line)
        self._send(attempt, directory.notes, self._worker)

    def set_final_status(self, attempt: Attempt, files: RunDirectoryState, action: SetFinalStatus) -> None:
        report = ExitReport(
            status="stopped" if action.status is TaskStatus.STOPPED else "failed",
            reason=in_one_line(action.reason),
            exit_code=1,
            at=self._clock.now(),
            last_line=action.reason,
        )
        log.info("task.ended", task=attempt.task, status=report.status, reason=action.reason)
        self.publish_exit_report(attempt, self._decided(files, report))

    def publish_exit_report(self, attempt: Attempt, files: RunDirectoryState) -> None:
        """The rest of the console, then the status of the report."""
        report = files.report
        assert report is not None
        if report.last_line:
            self._note(files.directory, report.last_line, unless_said=True)
        sent = self.ship(attempt, files)
        if not sent and not self._goes_on_without(attempt, files):
            return
        seen = None if report.status == "none" else self._wanted(attempt, files)
        if seen is not None:
            # One that was refused never started, and the usual steps lead through the start.
            force = seen is TaskStatus.QUEUED
            by = self._worker if sent else f"{self._worker}; the rest of its console follows when the server takes it"
            self._client.tasks.set_final_status(
                attempt.task, TaskStatus(report.status), report.reason, by, budget=INTERACTIVE, force=force
            )
        self._done(files, report, sent)

    def ship(self, attempt: Attempt, files: RunDirectoryState) -> bool:
        """Send what is left of all its consoles; False if the server did not take it."""
        directory = files.directory
        self._take_over(files)
        worker = WorkerId(files.claim.worker) if files.claim and files.claim.worker else self._worker
        consoles = [directory.consoles(), *node_files.consoles(directory)]
        sent = all(self._send(attempt, each, worker) for of_node in consoles for each in _unfinished(of_node))
        return sent and self._send(attempt, directory.notes, self._worker)

    def requeue(self, attempt: Attempt, files: RunDirectoryState, action: Requeue) -> None:
        """To the head of its queue, as the same task with all that it has reported so far."""
        directory = files.directory
        if files.report is None or files.report.status != "again":
            start = files.claim.restart_count if files.claim else 0
            used = len(directory.count_requeue(start).requeues) if action.restart else 0
            line = f"{action.why}: back to the head of its queue" + (f" (restart {used})" if used else "")
            if action.node and self._nodes.blame(action.node, attempt):
                line += f"; node {action.node} is avoided from now on"
            report = ExitReport(status="again", reason=action.why, exit_code=1, at=self._clock.now(), last_line=line)
            log.warning("task.requeued", task=attempt.task, why=action.why, restart=used)
            files = self._decided(files, report)
        assert files.report is not None
        if files.report.last_line:
            self._note(directory, files.report.last_line)
        sent = self.ship(attempt, files)
        if not sent and not self._goes_on_without(attempt, files):
            return
        reason = in_one_line(files.report.reason)
        try:
            if self._enqueue(attempt, files, reason):
                self._done(files, files.report, sent)
        except NotFoundError as error:
            if not INVALID_QUEUE_ID.matches(error):
                raise
            text = f"{reason}; the queue that it came from was deleted: enqueue it on another"
            self.set_final_status(attempt, files, SetFinalStatus(TaskStatus.FAILED, text))

    def _enqueue(self, attempt: Attempt, files: RunDirectoryState, why: str) -> bool:
        """Only if it is in no queue and no other agent has it: its user may have enqueued it again, or a daemon before
        may have died right after it did.

        False if that is not certain, or if its user wants it stopped: the next pass decides.

        Raises:
            NotFoundError: the queue was deleted.
        """
        seen = self._client.tasks.get_states([attempt.task], budget=ONCE).get(attempt.task)
        if seen is None or seen.status not in (TaskStatus.QUEUED, TaskStatus.IN_PROGRESS, TaskStatus.UNKNOWN):
            return True
        if seen.status is TaskStatus.IN_PROGRESS and run_owner(files, seen) is RunOwner.ANOTHERS:
            return True
        if seen.status is TaskStatus.UNKNOWN or seen.abort_requested:
            return False
        queue = QueueId(files.queue)
        if self._client.queues.queue_of(attempt.task) is None:
            self._client.queues.enqueue_at_head(queue, attempt.task, why)
        else:
            self._client.queues.move_to_front(queue, attempt.task)
        return True

    def _goes_on_without(self, attempt: Attempt, files: RunDirectoryState) -> bool:
        """Whether status and queue wait no longer for the console. After an outage of the whole server they do: who
        waits for a status reads the console then. So it must be refused twice by a server that answers all else.

        Raises:
            ServerUnreachableError: it does not answer; nothing is to be done.
        """
        report = files.report
        assert report is not None
        try:
            self._client.tasks.get_states([attempt.task], budget=ONCE)
        except ServerUnreachableError:
            if report.refused_at is not None:
                files.directory.write_exit_report(msgspec.structs.replace(report, refused_at=None))
            raise
        if report.refused_at is None:
            files.directory.write_exit_report(msgspec.structs.replace(report, refused_at=self._clock.now()))
            return False
        return abs((self._clock.now() - report.at).total_seconds()) > CONSOLE_PATIENCE_S

    def _done(self, files: RunDirectoryState, report: ExitReport, sent: bool) -> None:
        files.directory.write_exit_report(msgspec.structs.replace(report, posted=True, unsent=not sent))

    def _decided(self, files: RunDirectoryState, report: ExitReport) -> RunDirectoryState:
        files.directory.create().write_exit_report(report)
        return replace(files, report=report)

    def _take_over(self, files: RunDirectoryState) -> None:
        """From here on an executor that still lives, on a node that the scheduler takes for dead, must end."""
        if files.claim is not None and files.claim.state == "won":
            files.directory.write_claim(msgspec.structs.replace(files.claim, state="over"))

    def _wanted(self, attempt: Attempt, files: RunDirectoryState) -> TaskStatus | None:
        """The task's status, if it still waits for a final one of ours.

        Raises:
            ServerUnreachableError: the status is not known.
        """
        seen = self._client.tasks.get_states([attempt.task], budget=ONCE).get(attempt.task)
        if seen is None:
            return None
        if seen.status is TaskStatus.UNKNOWN:
            raise ServerUnreachableError(f"the server does not say what became of task {attempt.task}")
        # A task in a queue was enqueued again; one that is queued nowhere was rejected by a daemon.
        queued = seen.status is TaskStatus.QUEUED and self._client.queues.queue_of(attempt.task) is None
        runs = seen.status is TaskStatus.IN_PROGRESS and run_owner(files, seen) is not RunOwner.ANOTHERS
        return seen.status if queued or runs else None

    def _note(self, directory: RunDirectory, line: str, *, unless_said: bool = False) -> None:
        consoles = directory.consoles()
        if unless_said and consoles and Spool(consoles[-1].text, consoles[-1].mark).ends_with(line):
            return
        spool = Spool(directory.notes.text, directory.notes.mark)
        if not spool.holds(line):
            spool.write(f"{line}\n".encode())
        spool.close()

    def _send(self, attempt: Attempt, console: ConsoleFiles, worker: WorkerId) -> bool:
        source = ConsoleSource(attempt.task, worker, self._settings.agent.suppress_carriage_return)
        spool = Spool(console.text, console.mark)
        return Shipper(spool, source, self._client.events, self._clock).drain(ONCE)


def _unfinished(consoles: Sequence[ConsoleFiles]) -> Sequence[ConsoleFiles]:
    """Consoles from the last restart that sent anything. That restart first sent what those before it had left:
    what they hold now was written by executors that the scheduler took for dead, when they did not own the task."""
    marks = [Spool(console.text, console.mark).mark() for console in consoles]
    sent = [number for number, mark in enumerate(marks) if mark.offset or mark.sending]
    return consoles[sent[-1] :] if sent else consoles
