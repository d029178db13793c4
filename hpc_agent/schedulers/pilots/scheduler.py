"""Scheduler in front of a batch system: what fits into a queue's pilots goes to their board, anything else to the batch
system. A task's job is described by its files on the board, and by its pilot's job (docs/internals/pilots.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import Accepted, JobRecord, JobState, LiveJob, OutcomeUnknown, SubmitResult
from hpc_agent.domain.job_phase import WAITING_STATES
from hpc_agent.domain.pilot_slots import Slot, fits, pilot_name
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.file_records import CorruptFileError
from hpc_agent.logs import EventLog
from hpc_agent.schedulers.base import ArrayScheduler, JobOrigin, Scheduler, SubmitRequest
from hpc_agent.schedulers.pilots.board import (
    EndedPilotTask,
    PilotClaim,
    PilotTask,
    TaskBoard,
    TaskEnd,
    task_job_id,
    task_number,
)

log = EventLog("schedulers.pilots")

SCHEDULER = "Pilot"
"""What the jobs of tasks are called in sentences."""
_SOON = timedelta(seconds=20)
"""A task that gets its slot before has no reason to show."""
_KEPT = timedelta(days=7)
_SWEEP_S = 3600.0
_ORPHANS_S = 600.0
"""Seconds between two looks for tasks whose pilot is gone and that no pass asks for any more."""
_UNKNOWN_PILOT = timedelta(days=1)
"""Age of the claim of a pilot of which no source knows anything, after which its task has ended."""
_END_VISIBLE_S = 120.0
"""Seconds after its pilot's end for which a task's own end may still turn up: longer than NFS keeps attributes."""
_NODE_FAILURES = (JobState.NODE_FAIL, JobState.BOOT_FAIL)


class OpenTask(msgspec.Struct, frozen=True):
    """Task on the board, as one look finds it."""

    number: int
    task: PilotTask
    claim: PilotClaim | None = None
    pilot: LiveJob | None = None
    """Its pilot, while it has one that lives."""
    waits_for: str = ""
    """What keeps it from its start, in words."""

    def job(self, now: datetime | None = None) -> LiveJob | None:
        """Its job; None for one that is gone with its pilot. ``now``: without the reason why it waits, where that has
        not been for long."""
        if self.claim is not None and self.pilot is None:
            return None
        state = JobState.PENDING
        if self.pilot is not None:
            state = JobState.COMPLETING if self.pilot.state is JobState.COMPLETING else JobState.RUNNING
        return LiveJob(
            id=task_job_id(self.number),
            name=self.task.name,
            state=state,
            raw_state=state.value if self.pilot is None else f"{state.value} in {self.pilot.title}",
            reason="" if self.claim or (now and now - self.task.submitted <= _SOON) else self.waits_for,
            nodes=self.claim.node if self.claim else "",
            submitted=self.task.submitted,
            scheduler=SCHEDULER,
        )


class PilotScheduler:
    """See ``schedulers.base.Scheduler``; ``ArrayScheduler`` as far as the batch system is one, for jobs of its own."""

    def __init__(self, base: Scheduler, settings: HpcSettings, clock: Clock) -> None:
        self.base = base
        self._settings = settings
        self._clock = clock
        self._board: TaskBoard | None = None
        self._tasks: dict[int, PilotTask] = {}
        self._claims: dict[int, PilotClaim] = {}
        self.open_tasks: Sequence[OpenTask] = ()
        """As the last ``live_jobs`` saw them."""
        self.ended: Counter[str] = Counter()
        """Queue's name → its tasks that ended since the ``live_jobs`` before."""
        self.useful_pilots: set[str] = set()
        """Jobs of pilots that have taken a task, as far as this process saw it."""
        self._swept_at = float("-inf")
        self._orphans_at = float("-inf")

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def folder(self) -> Path:
        """Folder of the cluster's board."""
        return self._settings.pilots / self.base.cluster()

    @property
    def board(self) -> TaskBoard:
        if self._board is None:
            self._board = TaskBoard(self.folder)
        return self._board

    def cluster(self) -> str:
        return self.base.cluster()

    def about(self) -> JobOrigin:
        return self.base.about()

    def submit(self, request: SubmitRequest) -> SubmitResult:
        if not self._is_for_pilots(request):
            return self.base.submit(request)
        wanted = request.resources
        assert wanted.time_minutes is not None
        task = PilotTask(
            name=request.job_name,
            queue=request.queue,
            script=str(request.script),
            workdir=str(request.workdir),
            output=str(request.output),
            slot=Slot.of(wanted),
            time_limit=wanted.time_minutes * 60,
            submitted=self._clock.now(),
            warned=request.signal_ahead > 0,
        )
        try:
            return Accepted(task_job_id(self.board.add(task)))
        except (OSError, CorruptFileError) as error:
            return OutcomeUnknown(f"the task could not be written to {self.folder}: {error}")

    def _is_for_pilots(self, request: SubmitRequest) -> bool:
        queue = self._settings.queue(request.queue)
        if not request.queue or queue.mode != "pilot":
            return False
        return fits(request.resources, queue.pilot_resources(self._settings.resources))

    def live_jobs(self) -> Sequence[LiveJob]:
        """Also moves away what has ended."""
        live = self.base.live_jobs()
        with self._readable():
            self._look(live)
            now = self._clock.now()
            self._end_orphans()
            return [*live, *(job for each in self.open_tasks if (job := each.job(now)) is not None)]

    def look_at(self, live: Sequence[LiveJob]) -> Sequence[OpenTask]:
        """The open tasks, for who has asked the batch system already. Changes nothing.

        Raises:
            SchedulerUnavailableError: a file of the board cannot be read.
        """
        pilots = {job.id: job for job in live}
        with self._readable():
            numbers = self.board.numbers()
            return [
                found
                for number, kinds in numbers.items()
                if "end" not in kinds and (found := self._open(number, pilots))
            ]

    def _look(self, live: Sequence[LiveJob]) -> None:
        self.ended = Counter()
        pilots = {job.id: job for job in live}
        found = []
        numbers = self.board.numbers()
        for number, kinds in numbers.items():
            if "end" in kinds and (end := self.board.end(number)) is not None:
                self._retire(number, end)
            elif (open_task := self._open(number, pilots)) is not None:
                found.append(open_task)
        self.open_tasks = found
        self._tasks = {number: task for number, task in self._tasks.items() if number in numbers}
        self._claims = {number: claim for number, claim in self._claims.items() if number in numbers}
        self._sweep()

    def _open(self, number: int, pilots: Mapping[JobId, LiveJob]) -> OpenTask | None:
        task = self._tasks.get(number) or self.board.task(number)
        if task is None:
            return None
        self._tasks[number] = task
        claim = self._claims.get(number) or self.board.claim(number)
        if claim is None:
            return OpenTask(number, task, waits_for=_obstacle(task.queue, pilots))
        self._claims[number] = claim
        self.useful_pilots.add(claim.pilot)
        pilot = pilots.get(JobId(claim.pilot))
        goes_on = pilot is not None and pilot.state not in WAITING_STATES and pilot.restarts <= claim.restarts
        return OpenTask(number, task, claim, pilot if goes_on else None)

    def _retire(self, number: int, end: TaskEnd) -> None:
        task = self._tasks.get(number) or self.board.task(number)
        if task is not None:
            claim = self.board.claim(number)
            if claim is not None:
                self.useful_pilots.add(claim.pilot)
            self.board.retire(number, EndedPilotTask(task, end, claim))
            self.ended[task.queue] += 1

    def _sweep(self) -> None:
        if self._clock.monotonic() - self._swept_at > _SWEEP_S:
            self._swept_at = self._clock.monotonic()
            self.board.sweep(self._clock.now() - _KEPT)

    def _end_orphans(self) -> None:
        """Write the ends that dead pilots left out. Their records are asked for where a task is in doubt; one whose
        agent had reported all is not, and its files would stay."""
        orphans = {task_job_id(each.number): each for each in self.open_tasks if each.claim and each.pilot is None}
        if not orphans or self._clock.monotonic() - self._orphans_at < _ORPHANS_S:
            return
        self._orphans_at = self._clock.monotonic()
        try:
            known = self.records({job: each.task.submitted for job, each in orphans.items()})
        except SchedulerUnavailableError as error:
            log.warning("pilots.orphans_unknown", count=len(orphans), error=error)
            return
        now = self._clock.now()
        for job, each in orphans.items():
            if job not in known and each.claim is not None and now - each.claim.at > _UNKNOWN_PILOT:
                self.board.write_end(each.number, TaskEnd(JobState.PREEMPTED, now, pilot=f"job {each.claim.pilot}"))

    def room(self) -> Capacity:
        return self.base.room()

    def array_size(self) -> int:
        return self.base.array_size() if isinstance(self.base, ArrayScheduler) else 0

    def array_key(self, script: str) -> object | None:
        return self.base.array_key(script) if isinstance(self.base, ArrayScheduler) else None

    def submit_array(self, requests: Sequence[SubmitRequest]) -> Sequence[SubmitResult]:
        assert isinstance(self.base, ArrayScheduler)
        return self.base.submit_array(requests)

    def find(self, job_name: str, since: datetime) -> JobId | None:
        with self._readable():
            for number in reversed(self.board.numbers()):
                task = self.board.task(number)
                if task is not None and task.name == job_name and task.submitted >= since:
                    return task_job_id(number)
            for number, ended in sorted(self.board.ended_since(since).items(), reverse=True):
                if ended.task.name == job_name and ended.task.submitted >= since:
                    return task_job_id(number)
        return self.base.find(job_name, since)

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        ours = {job: number for job in jobs if (number := task_number(job)) is not None}
        with self._readable():
            ended = {job: found for job, number in ours.items() if (found := self._ended(number)) is not None}
            orphans = {
                job: orphan
                for job, number in ours.items()
                if job not in ended and (orphan := self._orphan(number)) is not None
            }
        asked = {job: since for job, since in jobs.items() if job not in ours}
        for _, claim in orphans.values():
            asked.setdefault(JobId(claim.pilot), claim.pilot_since or claim.at)
        known = self.base.records(asked) if asked else {}
        records = {job: record for job, record in known.items() if job in jobs}
        records |= {job: _record(job, found, self.base.cluster()) for job, found in ended.items()}
        for job, (task, claim) in orphans.items():
            pilot = known.get(JobId(claim.pilot))
            if pilot is not None:
                records[job] = self._record_of_orphan(job, task, claim, pilot)
        return records

    def _ended(self, number: int) -> EndedPilotTask | None:
        kept = self.board.ended(number)
        if kept is not None:
            return kept
        task, end = self.board.task(number), self.board.end(number)
        return EndedPilotTask(task, end, self.board.claim(number)) if task is not None and end is not None else None

    def _orphan(self, number: int) -> tuple[PilotTask, PilotClaim] | None:
        """A task whose pilot may be gone."""
        task, claim = self.board.task(number), self.board.claim(number)
        return (task, claim) if task is not None and claim is not None else None

    def _record_of_orphan(self, job: JobId, task: PilotTask, claim: PilotClaim, pilot: JobRecord) -> JobRecord:
        if not pilot.state.is_final:
            return JobRecord(
                job, pilot.state, pilot.raw_state, task.name, submitted=task.submitted, scheduler=SCHEDULER
            )
        state = pilot.state if pilot.state in _NODE_FAILURES else JobState.PREEMPTED
        ended = pilot.ended or self._clock.now()
        end = TaskEnd(state, ended, pilot=f"{pilot.title}, {pilot.raw_state}")
        if (self._clock.now() - ended).total_seconds() > _END_VISIBLE_S:
            number = task_number(job)
            assert number is not None
            self.board.write_end(number, end)
        return _record(job, EndedPilotTask(task, end, claim), self.base.cluster())

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        others = []
        with self._readable():
            for job in jobs:
                number = task_number(job)
                if number is None:
                    others.append(job)
                elif self.board.task(number) is not None and not self._withdraw(number) and not only_pending:
                    self.board.request_cancel(number)
        if others:
            self.base.cancel(others, only_pending=only_pending)

    def return_tasks(self, queue: str) -> None:
        """Take the waiting tasks of a queue off the board, for another submission.

        Raises:
            SchedulerUnavailableError: as ``live_jobs``.
        """
        with self._readable():
            for each in self.open_tasks:
                if each.task.queue == queue and each.claim is None:
                    self._withdraw(each.number, JobState.PREEMPTED)

    def _withdraw(self, number: int, state: JobState = JobState.CANCELLED) -> bool:
        """Take a task off the board that no pilot has; False if one has it."""
        now = self._clock.now()
        claim = self.board.claim(number)
        if claim is None and self.board.take(number, PilotClaim(now)):
            claim = PilotClaim(now)
        if claim is None or claim.pilot:
            return False
        self.board.write_end(number, TaskEnd(state, claim.at))
        return True

    def release(self, jobs: Sequence[JobId]) -> None:
        others = [job for job in jobs if task_number(job) is None]
        if others:
            self.base.release(others)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """A record that cannot be read is not information."""
        try:
            yield
        except (OSError, CorruptFileError) as error:
            raise SchedulerUnavailableError(f"the pilots' folder {self.folder} cannot be used: {error}") from error


def _obstacle(queue: str, live: Mapping[JobId, LiveJob]) -> str:
    """What a task of this queue waits for, given all jobs that the batch system lists."""
    name = pilot_name(queue)
    pilots = [job for job in live.values() if job.name == name]
    if any(job.state is JobState.RUNNING for job in pilots):
        return "no free slot"
    if not pilots:
        return "no pilot"
    reason = f": {pilots[0].reason}" if pilots[0].reason else ""
    return f"its pilot waits, {pilots[0].title}{reason}"


def _record(job: JobId, ended: EndedPilotTask, node: str) -> JobRecord:
    task, claim, end = ended.task, ended.claim, ended.end
    has_pilot = claim is not None and bool(claim.pilot)
    return JobRecord(
        id=job,
        state=end.state,
        raw_state=end.state.value,
        name=task.name,
        exit_code=end.exit_code,
        signal=end.signal,
        submitted=task.submitted,
        started=claim.at if claim is not None and has_pilot else None,
        ended=end.at,
        nodes=claim.node or node if claim is not None and has_pilot else "",
        pilot=end.pilot,
        time_limit=task.time_limit,
        scheduler=SCHEDULER,
    )
