"""The end of a run, where its executor left it to the daemon: last lines, a final status, or its queue again."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.api.tasks import Glimpse
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.facts import Files
from hpc_agent.daemon.nodes import BadNodes
from hpc_agent.domain.actions import PutBack, Settle
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.verdict import in_one_line
from hpc_agent.errors import ApiError
from hpc_agent.logs import Events
from hpc_agent.retry import INTERACTIVE, ONCE
from hpc_agent.runs.directory import ConsoleFiles, RunDirectory, RunsFolder
from hpc_agent.runs.records import ExitReport
from hpc_agent.telemetry.shipper import Shipper, Source
from hpc_agent.telemetry.spool import Spool

log = Events("conclude")

_OTHER_STATUS = 110
"""ClearML's subcode for a transition that the task's present status does not allow."""


class Concluder:
    """What is decided is written down first, so that a death on any line is mended by the next pass."""

    def __init__(self, client: Client, settings: AllSettings, worker: WorkerId, clock: Clock) -> None:
        self._client = client
        self._settings = settings
        self._worker = worker
        self._clock = clock
        self._nodes = BadNodes(RunsFolder(settings.hpc.runs).nodes, clock)

    def tell(self, attempt: Attempt, directory: RunDirectory, line: str) -> None:
        """A line of the daemon's own in the task's console, where its user looks first; the same one only once."""
        self._note(directory, line)
        self._send(attempt, directory.notes, self._worker)

    def settle(self, attempt: Attempt, files: Files, action: Settle) -> None:
        report = ExitReport(
            status="stopped" if action.status is TaskStatus.STOPPED else "failed",
            reason=in_one_line(action.reason),
            exit_code=1,
            at=self._clock.now(),
            last_line=action.reason,
        )
        log.info("settling", task=attempt.task, status=report.status, reason=action.reason)
        self.finish(attempt, self._decided(files, report))

    def finish(self, attempt: Attempt, files: Files) -> None:
        """The rest of the console, then the status of the report."""
        report = files.report
        assert report is not None
        if report.last_line:
            self._note(files.directory, report.last_line, unless_said=True)
        if not self.ship(attempt, files):
            return
        status = self._wanted(attempt)
        if status is not None:
            # One that was refused never started, and the usual steps lead through the start.
            self._post(attempt, report, force=status is TaskStatus.QUEUED)
        files.directory.write_exit_report(msgspec.structs.replace(report, posted=True))

    def ship(self, attempt: Attempt, files: Files) -> bool:
        """Send what is left of all its consoles; False if the server did not take it."""
        directory = files.directory
        self._take_over(files)
        worker = WorkerId(files.claim.worker) if files.claim and files.claim.worker else self._worker
        sent = all(self._send(attempt, console, worker) for console in directory.consoles())
        return sent and self._send(attempt, directory.notes, self._worker)

    def put_back(self, attempt: Attempt, files: Files, action: PutBack) -> None:
        """To the head of its queue, as the same task with all that it has reported so far."""
        directory = files.directory
        if files.report is None or files.report.status != "again":
            start = files.claim.start if files.claim else 0
            used = len(directory.add_restart(start).of) if action.restart else 0
            line = f"{action.why}: back to the head of its queue" + (f" (restart {used})" if used else "")
            if action.node and self._nodes.blame(action.node, attempt):
                line += f"; node {action.node} is avoided from now on"
            report = ExitReport(status="again", reason=action.why, exit_code=1, at=self._clock.now(), last_line=line)
            log.warning("back to the queue", task=attempt.task, why=action.why, restart=used)
            files = self._decided(files, report)
        assert files.report is not None
        if files.report.last_line:
            self._note(directory, files.report.last_line)
        if self.ship(attempt, files):
            self._enqueue(attempt, files, in_one_line(files.report.reason))
            directory.write_exit_report(msgspec.structs.replace(files.report, posted=True))

    def _enqueue(self, attempt: Attempt, files: Files, why: str) -> None:
        """Only if it is in no queue, and nobody else has it: its user may have enqueued it anew, or a daemon before us
        died right after it did."""
        seen = self._client.tasks.glimpse([attempt.task], budget=ONCE).get(attempt.task)
        if seen is None or seen.abort_requested or seen.status not in (TaskStatus.QUEUED, TaskStatus.IN_PROGRESS):
            return
        if seen.status is TaskStatus.IN_PROGRESS and not _is_ours(attempt, files, seen):
            return
        queue = QueueId(files.queue)
        if self._client.queues.holding(attempt.task) is None:
            self._client.queues.put_first(queue, attempt.task, why)
        else:
            self._client.queues.to_front(queue, attempt.task)

    def _decided(self, files: Files, report: ExitReport) -> Files:
        files.directory.create().write_exit_report(report)
        return replace(files, report=report)

    def _take_over(self, files: Files) -> None:
        """From here on an executor that still lives, on a node that the scheduler takes for dead, must end."""
        if files.claim is not None and files.claim.state == "won":
            files.directory.write_claim(msgspec.structs.replace(files.claim, state="over"))

    def _wanted(self, attempt: Attempt) -> TaskStatus | None:
        """The task's status, if it still waits for a final one of ours."""
        seen = self._client.tasks.glimpse([attempt.task], budget=ONCE).get(attempt.task)
        if seen is None:
            return None
        # One that is in a queue was enqueued anew; one that is queued nowhere is a refusal of ours.
        queued = seen.status is TaskStatus.QUEUED and self._client.queues.holding(attempt.task) is None
        runs = seen.status is TaskStatus.IN_PROGRESS and _has_stamp(attempt, seen)
        return seen.status if queued or runs else None

    def _post(self, attempt: Attempt, report: ExitReport, *, force: bool) -> None:
        tasks, message = self._client.tasks, f"Changed by hpc-agent {self._worker}"
        try:
            if report.status == "completed":
                tasks.completed(attempt.task, report.reason, message, budget=INTERACTIVE)
            elif report.status == "stopped":
                tasks.stopped(attempt.task, report.reason, message, budget=INTERACTIVE, force=force)
            elif report.status == "failed":
                tasks.failed(attempt.task, report.reason, message, budget=INTERACTIVE, force=force)
        except ApiError as error:
            if error.subcode != _OTHER_STATUS:
                raise
            log.info("the task has another status already", task=attempt.task, error=error)

    def _note(self, directory: RunDirectory, line: str, *, unless_said: bool = False) -> None:
        said = directory.consoles()
        if unless_said and said and Spool(said[-1].text, said[-1].mark).ends_with(line):
            return
        spool = Spool(directory.notes.text, directory.notes.mark)
        if not spool.holds(line):
            spool.write(f"{line}\n".encode())
        spool.close()

    def _send(self, attempt: Attempt, console: ConsoleFiles, worker: WorkerId) -> bool:
        source = Source(attempt.task, worker, self._settings.agent.suppress_carriage_return)
        spool = Spool(console.text, console.mark)
        return Shipper(spool, source, self._client.events, self._clock).drain(ONCE)


def _has_stamp(attempt: Attempt, seen: Glimpse) -> bool:
    return not seen.stamp or seen.stamp.startswith(f"{attempt.id}.")


def _is_ours(attempt: Attempt, files: Files, seen: Glimpse) -> bool:
    """Whether a task that shows as running does so because of us: an agent of another kind leaves the stamp alone, but
    says who it is."""
    claim = files.claim
    reported = claim is not None and claim.begun and seen.last_worker
    return _has_stamp(attempt, seen) and (not reported or claim is None or seen.last_worker == claim.worker)
