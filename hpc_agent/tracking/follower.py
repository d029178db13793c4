"""Follower of tracked jobs: observes them from outside until their tasks have a final status, one squeue a pass.

It runs where people submit, one for all jobs of a user on whichever login node. It may be killed at any moment: the
next one goes on from the folders.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.failure_cause import failure_cause
from hpc_agent.domain.failure_table import FailureKind
from hpc_agent.domain.ids import JobId, TaskId, WorkerId
from hpc_agent.domain.job_phase import doubt_seconds
from hpc_agent.domain.outcome import SCRIPT_ADVICE
from hpc_agent.errors import HpcAgentError, SchedulerUnavailableError, ServerUnreachableError
from hpc_agent.file_records import ensure_directory
from hpc_agent.lease import HeartbeatTiming, Lease, lately_held
from hpc_agent.logs import EventLog
from hpc_agent.redact import without_secrets
from hpc_agent.retry import INTERACTIVE, ONCE, next_pause
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.telemetry.shipper import ConsoleSource, Shipper
from hpc_agent.telemetry.spool import Spool
from hpc_agent.tracking import output_files, tracking_policy
from hpc_agent.tracking.task_start import StartReport, start_task
from hpc_agent.tracking.tracked_jobs import TrackedJob, TrackedJobsObserver
from hpc_agent.tracking.tracked_notifier import TrackedNotifier
from hpc_agent.tracking.tracked_records import EndedRecord, OutputStream, TrackedRoot
from hpc_agent.tracking.unclear_submissions import UnclearSubmissions

log = EventLog("follow")

_TAIL_BYTES = 128 * 1024
NOTIFY_S = 15.0
"""How long a follower that has nothing left to do stays for its notifications."""
_EVERY_S = 60.0
"""How often a task's message may change, and how often the server hears that a task is alive."""


class Follower:
    """Follower of all tracked jobs of a user: ``run`` until none is left, or ``run_pass`` once."""

    def __init__(
        self, client: Client, scheduler: Scheduler, settings: AllSettings, folders: TrackedRoot, clock: Clock
    ) -> None:
        self._client = client
        self._scheduler = scheduler
        self._settings = settings
        self._observer = TrackedJobsObserver(client, scheduler, folders, clock, settings.hpc.lost_after)
        self._unclear = UnclearSubmissions(client, scheduler, folders, clock, doubt_seconds(settings.hpc.lost_after))
        self._notifier = TrackedNotifier(client, settings.hpc.notify, clock)
        self._folders = folders
        self._clock = clock
        self._last: dict[tuple[str, TaskId], float] = {}

    def run(self) -> None:
        """Passes at the poll interval until nothing is left to follow."""
        pause = self._settings.hpc.poll_interval
        while True:
            try:
                if not self.run_pass():
                    self._notifier.finish(NOTIFY_S)
                    return
                pause = self._settings.hpc.poll_interval
            except Exception as error:  # noqa: BLE001 - the top of the loop: the next pass starts from what is true then
                unexpected = not isinstance(error, (ServerUnreachableError, SchedulerUnavailableError))
                log.error("pass.failed", error=error, trace=unexpected)
                pause = next_pause(pause)
            self._clock.sleep(pause)

    def run_pass(self) -> int:
        """Look, decide, act; returns how many are left.

        Raises:
            ServerUnreachableError, SchedulerUnavailableError: nothing was seen.
        """
        self._unclear.run_pass()
        snapshots = self._observer.look()
        for tracked, snapshot in snapshots:
            self._guarded(tracked, partial(self._act_on, tracked, snapshot))
            if tracked.folder.path.exists():
                self._notifier.update(tracked, snapshot)
        return self._unclear.left() + sum(1 for tracked, _ in snapshots if tracked.folder.path.exists())

    def finish_pass(self) -> None:
        """For a single pass: wait for its notifications, and remove records of long ago."""
        self._notifier.finish(NOTIFY_S)
        self.prune()

    def prune(self) -> None:
        """Remove the records of tasks whose tracking ended long ago."""
        days = self._settings.hpc.keep_runs_days
        if days:
            with suppress(OSError):
                self._folders.prune_ended(self._clock.now() - timedelta(days=days))

    def has_work(self) -> bool:
        return bool(self._observer.followed() or self._unclear.left())

    def _act_on(self, tracked: TrackedJob, snapshot: tracking_policy.TrackedJobSnapshot) -> None:
        for action in tracking_policy.decide(snapshot, self._settings.hpc.lost_after):
            self._guarded(tracked, partial(self._act, tracked, snapshot, action))

    def _guarded(self, tracked: TrackedJob, act: Callable[[], None]) -> None:
        """One job's trouble is not the others'."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - nor is an unforeseen error
            known = isinstance(error, (HpcAgentError, OSError))
            job, task = tracked.job.id, tracked.folder.task
            log.error("task.action_failed", task=task, job=job, error=error, trace=not known)

    def _act(
        self,
        tracked: TrackedJob,
        snapshot: tracking_policy.TrackedJobSnapshot,
        action: tracking_policy.TrackingAction,
    ) -> None:
        match action:
            case tracking_policy.MarkStarted():
                self._begin(tracked)
            case tracking_policy.ShowMessage(message, console):
                self._say(tracked, message)
                if console:
                    self._note(tracked, console)
            case tracking_policy.PingTask():
                self._ping(tracked)
            case tracking_policy.SendConsole():
                self._ship(tracked)
            case tracking_policy.CancelTracked(why):
                self._cancel(tracked, why)
            case tracking_policy.EndTask():
                self._end(tracked, snapshot, action)
            case tracking_policy.Untrack(why):
                self._leave(tracked, why)

    def _begin(self, tracked: TrackedJob) -> None:
        if tracked.task_started:
            self._client.tasks.started(tracked.folder.task, "its Slurm job runs", f"Slurm job {tracked.job.id} runs")
            return
        start = start_task(self._client, tracked.folder, tracked.plan, tracked.job.id, self._clock)
        if start is StartReport.WITHDRAWN:
            self._cancel(tracked, "its task was aborted while it waited")
        elif start is StartReport.ELSEWHERE:
            self._leave(tracked, "its task is on another queue")

    def _say(self, tracked: TrackedJob, message: str) -> None:
        # Reasons and expected starts change all the time; that it waits again is news.
        every = self._settings.hpc.wait_message_interval
        if self._is_time(message.partition(" (")[0], tracked.folder.task, every):
            self._client.tasks.set_status_message(tracked.folder.task, message, budget=ONCE)

    def _ping(self, tracked: TrackedJob) -> None:
        if self._is_time("ping", tracked.folder.task):
            self._client.tasks.ping(tracked.folder.task, budget=ONCE)

    def _is_time(self, what: str, task: TaskId, every: float = _EVERY_S) -> bool:
        now = self._clock.monotonic()
        if now - self._last.get((what, task), float("-inf")) < every:
            return False
        self._last[what, task] = now
        return True

    def _ship(self, tracked: TrackedJob) -> bool:
        """Send what is new in the job's output files; True if that is all of it."""
        if tracked.plan.indices:
            return True  # each element has its own
        complete = True
        for spool in output_files.readable(tracked.folder, self._streams(tracked)):
            shipper = Shipper(spool, self._source(tracked), self._client.events, self._clock, rewritable=True)
            complete &= shipper.drain(ONCE)
        return complete

    def _streams(self, tracked: TrackedJob) -> tuple[OutputStream, ...]:
        if tracked.sidecar:
            return tracked.sidecar.streams
        return output_files.find(tracked.job.id, tracked.plan.outputs)

    def _source(self, tracked: TrackedJob) -> ConsoleSource:
        sidecar = tracked.sidecar
        worker = WorkerId(sidecar.worker if sidecar else f"{self._settings.agent.name}:slurm:{tracked.job.id}")
        return ConsoleSource(tracked.folder.task, worker, self._settings.agent.suppress_carriage_return)

    def _note(self, tracked: TrackedJob, line: str) -> None:
        """A line of our own in the task's console, once.

        Raises:
            ServerUnreachableError: it was not sent.
        """
        spool = Spool(tracked.folder.notes, tracked.folder.notes_mark)
        if not spool.holds(line):
            spool.write(f"{line}\n".encode("utf-8", "backslashreplace"))
        spool.close()
        if not Shipper(spool, self._source(tracked), self._client.events, self._clock).drain(ONCE):
            raise ServerUnreachableError("a line about its console was not sent")

    def _cancel(self, tracked: TrackedJob, why: str) -> None:
        job = tracked.job
        if not job.known:
            text = f"Slurm job {job.id} was not cancelled though {why}: it was never seen under the name "
            text += f"{tracked.plan.job_name!r} that was submitted; if it is the right one: scancel {job.id}"
            if self._is_time("not cancelled", tracked.folder.task):
                log.warning("job.not_cancelled", task=tracked.folder.task, job=job.id, name=tracked.plan.job_name)
                self._client.tasks.set_status_message(tracked.folder.task, text, budget=ONCE)
            return
        log.info("job.cancelled", task=tracked.folder.task, job=job.id, why=why)
        self._scheduler.cancel([JobId(job.id)])

    def _end(
        self, tracked: TrackedJob, snapshot: tracking_policy.TrackedJobSnapshot, end: tracking_policy.EndTask
    ) -> None:
        task = tracked.folder.task
        if not tracked.task_started:
            start_task(self._client, tracked.folder, tracked.plan, tracked.job.id, self._clock)
        if not self._ship(tracked):
            raise ServerUnreachableError("the rest of its console was not sent")
        reason = self._explained(tracked, end)
        by = f"for Slurm job {tracked.job.id}"
        self._client.tasks.set_final_status(task, end.status, reason, by, budget=INTERACTIVE)
        self._notifier.end(tracked, snapshot, end.status, reason)
        self._leave(tracked, reason)

    def _explained(self, tracked: TrackedJob, end: tracking_policy.EndTask) -> str:
        """The reason, with what became of the job's output; a line in the console where that is not here."""
        if tracked.plan.indices:
            return end.reason
        if end.exit_code and (cause := self._cause(tracked, end.exit_code)):
            return f"{end.reason}: {cause}"
        if tracked.sidecar is not None and tracked.sidecar.over:
            return end.reason
        streams = self._streams(tracked)
        if end.output_not_opened:
            unopened = next((stream for stream in streams if not output_files.is_here(stream)), None)
            return (
                end.reason.replace(SCRIPT_ADVICE.output, output_files.not_opened(unopened.path))
                if unopened
                else end.reason
            )
        if line := output_files.not_found(streams, socket.gethostname()):
            self._note(tracked, line)
        return end.reason

    def _cause(self, tracked: TrackedJob, exit_code: int) -> str:
        """What the script died of, if its last lines show it. Advice is about user properties, which it has none of."""
        for spool in output_files.readable(tracked.folder, self._streams(tracked)):
            text = spool.read(max(spool.size() - _TAIL_BYTES, 0), _TAIL_BYTES).decode("utf-8", "replace")
            cause = failure_cause(text, exit_code)
            if cause is not None and cause.kind is not FailureKind.SIGNAL:
                return without_secrets(cause.sentence)
        return ""

    def _leave(self, tracked: TrackedJob, why: str) -> None:
        log.info("task.untracked", task=tracked.folder.task, job=tracked.job.id, why=why)
        if tracked.sidecar is not None:
            try:
                self._client.workers.unregister(WorkerId(tracked.sidecar.worker))
            except HpcAgentError as error:
                log.debug("worker.unregister_failed", error=error)
        with suppress(OSError):  # it serves a table
            self._folders.write_ended(tracked.folder.task, EndedRecord(at=self._clock.now(), job=tracked.job.id))
        tracked.folder.remove()


_PACE = HeartbeatTiming()


def is_followed(folders: TrackedRoot, clock: Clock) -> bool:
    """Ask after the job is recorded: a follower that is about to leave looks once more when it has left."""
    return lately_held(folders.lease, clock, _PACE)


def acquire_follower(follower: Follower, folders: TrackedRoot, clock: Clock, *, once: bool) -> None:
    """Follow until nothing is left, unless another process does."""
    ensure_directory(folders.path, mode=0o700)
    while True:
        lease = Lease(folders.lease, clock, _PACE)
        if not _acquired(lease, clock, timeout=0 if once else 1.5 * _PACE.expires_after):
            log.info("follower.lease_held")
            return
        try:
            if once:
                follower.run_pass()
                follower.finish_pass()
                return
            follower.prune()
            follower.run()
        finally:
            lease.release()
        if not follower.has_work():
            return


def _acquired(lease: Lease, clock: Clock, timeout: float) -> bool:
    """A holder on another machine shows that it is dead by standing still while we watch."""
    deadline = clock.monotonic() + timeout
    while not lease.acquire():
        if clock.monotonic() >= deadline:
            return False
        clock.sleep(_PACE.interval)
    return True
