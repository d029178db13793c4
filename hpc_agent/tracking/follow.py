"""Follows tracked jobs from outside until their tasks have a final status: one squeue a pass, whatever their number.

Runs where people submit; it may be killed at any moment, and the next one goes on from the folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from hpc_agent.api.client import Client
from hpc_agent.api.tasks import Glimpse
from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.ids import JobId, TaskId, WorkerId
from hpc_agent.domain.job import JobRecord, LiveJob
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import (
    ApiError,
    HpcAgentError,
    InputError,
    SchedulerUnavailableError,
    ServerUnreachableError,
)
from hpc_agent.logs import Events
from hpc_agent.retry import INTERACTIVE, ONCE
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.telemetry.shipper import Shipper, Source
from hpc_agent.tracking import due, outputs
from hpc_agent.tracking.beginning import Start, begin
from hpc_agent.tracking.records import Folder, Folders, Inside, Job, Plan

log = Events("follow")

_LONGEST_BACKOFF_S = 120.0
_SAY_EVERY_S = 60.0
_PING_EVERY_S = 60.0
_INSIDE_AFTER_S = 60.0
"""So long after its start a job's own process may be on its way."""
_OTHER_STATUS = 110
"""ClearML's subcode for a transition that the task's present status does not allow."""
_SILENCED = "non-responsive"
"""The server's own words for stopping a task that it heard nothing of for long."""


@dataclass(frozen=True)
class Tracked:
    """What stands in one folder."""

    folder: Folder
    plan: Plan
    job: Job
    inside: Inside | None
    begun: bool

    @property
    def jobs(self) -> list[JobId]:
        """All elements of an array, as squeue and sacct name them."""
        return [JobId(f"{self.job.id}_{index}") for index in self.plan.indices] or [JobId(self.job.id)]


@dataclass
class _Memory:
    """What a pass must know of the passes before. Losing it costs patience only."""

    gone_since: float | None = None
    running_since: float | None = None
    records: tuple[JobRecord, ...] = ()
    steady: bool = False
    said: str = ""
    said_at: float = float("-inf")
    pinged_at: float = float("-inf")


class Follower:
    def __init__(
        self, client: Client, scheduler: Scheduler, settings: AllSettings, folders: Folders, clock: Clock
    ) -> None:
        self._client = client
        self._scheduler = scheduler
        self._settings = settings
        self._folders = folders
        self._clock = clock
        self._memory: dict[TaskId, _Memory] = {}

    def run(self) -> None:
        """Passes at the poll interval until nothing is left to follow."""
        pause = self._settings.hpc.poll_interval
        while True:
            try:
                if not self.run_pass():
                    return
                pause = self._settings.hpc.poll_interval
            except (ServerUnreachableError, SchedulerUnavailableError) as error:
                log.warning("no answer, nothing is concluded", error=error)
                pause = min(max(pause, 1) * 2, _LONGEST_BACKOFF_S)
            self._clock.sleep(pause)

    def run_pass(self) -> int:
        """Look, decide, act; returns how many are left.

        Raises:
            ServerUnreachableError, SchedulerUnavailableError: nothing was seen.
        """
        followed = self._followed()
        if not followed:
            return 0
        live: dict[JobId, LiveJob] = {}
        for job in self._scheduler.live_jobs():
            # The components of a heterogeneous job are 12+0, 12+1 …; the first stands for all.
            live.setdefault(JobId(job.id.partition("+")[0]), job)
        records = self._records(followed, live)
        statuses = self._client.tasks.glimpse([tracked.folder.task for tracked in followed], budget=ONCE)
        for tracked in followed:
            sight = self._sight(tracked, live, records, statuses.get(tracked.folder.task))
            for action in due.decide(sight, self._settings.hpc.slurm.lost_after):
                self._guarded(tracked, action)
        return sum(1 for tracked in followed if tracked.folder.path.exists())

    def has_work(self) -> bool:
        return bool(self._followed())

    def _followed(self) -> list[Tracked]:
        """Of this cluster: another one that shares the file system has jobs of the same numbers."""
        found = []
        for folder in self._folders.all():
            try:
                plan, job = folder.plan(), folder.job()
                if plan is not None and job is not None and plan.cluster in ("", self._scheduler.cluster()):
                    found.append(Tracked(folder, plan, job, folder.inside(), folder.begun() is not None))
            except (HpcAgentError, OSError) as error:
                if isinstance(error, SchedulerUnavailableError):
                    raise
                log.error("its folder cannot be read, leaving it alone", task=folder.task, error=error)
        return found

    def _records(self, followed: Sequence[Tracked], live: Mapping[JobId, LiveJob]) -> Mapping[JobId, JobRecord]:
        gone: dict[JobId, datetime] = {}
        for tracked in followed:
            absent = [job for job in tracked.jobs if job not in live]
            gone.update(dict.fromkeys(absent, tracked.job.submitted))
            if absent and tracked.plan.indices:
                # Elements that never started share the record of the array itself.
                gone[JobId(tracked.job.id)] = tracked.job.submitted
        return self._scheduler.records(gone) if gone else {}

    def _sight(
        self,
        tracked: Tracked,
        live: Mapping[JobId, LiveJob],
        records: Mapping[JobId, JobRecord],
        glimpse: Glimpse | None,
    ) -> due.Sight:
        ours = tuple(live[job] for job in tracked.jobs if job in live)
        absent = [job for job in tracked.jobs if job not in live]
        rest = records.get(JobId(tracked.job.id))
        known = tuple(record for job in absent if (record := records.get(job, rest)))
        memory = self._remember(tracked.folder.task, ours, known)
        message = f"{glimpse.reason} {glimpse.message}" if glimpse else ""
        return due.Sight(
            job=tracked.job.id,
            status=glimpse.status if glimpse else None,
            live=ours,
            ended=known,
            missing=len(absent) - len(known),
            is_array=bool(tracked.plan.indices),
            queued=bool(tracked.plan.queue),
            begun=tracked.begun,
            abort_requested=bool(glimpse and glimpse.abort_requested),
            silenced=bool(glimpse and glimpse.status is TaskStatus.STOPPED and _SILENCED in message),
            inside=self._is_inside(tracked, memory),
            gone_for=self._since(memory.gone_since),
            steady=memory.steady,
        )

    def _is_inside(self, tracked: Tracked, memory: _Memory) -> bool:
        """Whether the console is sent from inside: two at once would send lines twice."""
        if not tracked.plan.hooked:
            return False
        if tracked.inside is not None and not tracked.inside.over:
            return True
        starting = memory.running_since is not None and self._since(memory.running_since) < _INSIDE_AFTER_S
        return starting or (tracked.inside is None and memory.running_since is None)

    def _since(self, moment: float | None) -> float:
        return 0.0 if moment is None else self._clock.monotonic() - moment

    def _remember(self, task: TaskId, live: tuple[LiveJob, ...], records: tuple[JobRecord, ...]) -> _Memory:
        memory, now = self._memory.setdefault(task, _Memory()), self._clock.monotonic()
        memory.gone_since = None if live else now if memory.gone_since is None else memory.gone_since
        running = any(job.state not in due.WAITS for job in live)
        memory.running_since = None if not running else memory.running_since or now
        memory.steady = bool(records) and records == memory.records
        memory.records = records
        return memory

    def _guarded(self, tracked: Tracked, action: due.Action) -> None:
        """One job's trouble is not the others'."""
        try:
            self._act(tracked, action)
        except (HpcAgentError, OSError) as error:
            log.warning("left for the next pass", task=tracked.folder.task, job=tracked.job.id, error=error)

    def _act(self, tracked: Tracked, action: due.Action) -> None:
        match action:
            case due.Begin():
                self._begin(tracked)
            case due.Say(message, ping):
                self._say(tracked, message)
                if ping:
                    self._ping(tracked)
            case due.Ping():
                self._ping(tracked)
            case due.Ship():
                self._ship(tracked)
            case due.Cancel(why):
                self._cancel(tracked, why)
            case due.End():
                self._end(tracked, action)
            case due.Leave(why):
                self._leave(tracked, why)

    def _begin(self, tracked: Tracked) -> None:
        if tracked.begun:
            self._client.tasks.started(tracked.folder.task, "its Slurm job runs", f"Slurm job {tracked.job.id} runs")
            return
        start = begin(self._client, tracked.folder, tracked.plan, tracked.job.id, self._clock)
        if start is Start.WITHDRAWN:
            self._cancel(tracked, "its task was aborted while it waited")
        elif start is Start.ELSEWHERE:
            self._leave(tracked, "its task is on another queue")

    def _say(self, tracked: Tracked, message: str) -> None:
        memory, now = self._memory[tracked.folder.task], self._clock.monotonic()
        if message != memory.said and now - memory.said_at >= _SAY_EVERY_S:
            self._client.tasks.say(tracked.folder.task, message, budget=ONCE)
            memory.said, memory.said_at = message, now

    def _ping(self, tracked: Tracked) -> None:
        memory, now = self._memory[tracked.folder.task], self._clock.monotonic()
        if now - memory.pinged_at >= _PING_EVERY_S:
            self._client.tasks.ping(tracked.folder.task, budget=ONCE)
            memory.pinged_at = now

    def _ship(self, tracked: Tracked) -> bool:
        """Send what is new in the job's output files; True if that is all of it."""
        if tracked.plan.indices:
            return True  # each element has its own
        inside = tracked.inside
        streams = inside.streams if inside else outputs.ask_slurm(tracked.job.id)
        worker = WorkerId(inside.worker if inside else f"{self._settings.agent.name}:slurm:{tracked.job.id}")
        source = Source(tracked.folder.task, worker, self._settings.agent.suppress_carriage_return)
        complete = True
        for spool in outputs.readable(tracked.folder, streams):
            complete &= Shipper(spool, source, self._client.events, self._clock).drain(ONCE)
        return complete

    def _cancel(self, tracked: Tracked, why: str) -> None:
        log.info("cancelling", task=tracked.folder.task, job=tracked.job.id, why=why)
        self._scheduler.cancel([JobId(tracked.job.id)])

    def _end(self, tracked: Tracked, end: due.End) -> None:
        task = tracked.folder.task
        if not tracked.begun:
            begin(self._client, tracked.folder, tracked.plan, tracked.job.id, self._clock)
        if not self._ship(tracked):
            raise ServerUnreachableError("the rest of its console was not sent")
        message = f"Changed by hpc-agent for Slurm job {tracked.job.id}"
        tasks = self._client.tasks
        posts = {TaskStatus.COMPLETED: tasks.completed, TaskStatus.STOPPED: tasks.stopped}
        post = partial(posts.get(end.status, tasks.failed), task, end.reason, message, budget=INTERACTIVE)
        try:
            post()
        except ApiError as error:
            if error.subcode != _OTHER_STATUS:
                raise
            log.info("the task has another status already", task=task, error=error)
        log.info("ended", task=task, job=tracked.job.id, status=end.status.value, reason=end.reason)
        self._leave(tracked, end.reason)

    def _leave(self, tracked: Tracked, why: str) -> None:
        log.info("no longer followed", task=tracked.folder.task, job=tracked.job.id, why=why)
        if tracked.inside is not None:
            try:
                self._client.workers.unregister(WorkerId(tracked.inside.worker))
            except (ApiError, ServerUnreachableError, InputError) as error:
                log.debug("worker not unregistered", error=error)
        tracked.folder.remove()
        self._memory.pop(tracked.folder.task, None)
