"""One look at everything: queues, one squeue, run directories, server statuses, the records of jobs that are gone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from hpc_agent.api.client import Client
from hpc_agent.api.tasks import Glimpse
from hpc_agent.clock import Clock
from hpc_agent.daemon.facts import Files, read
from hpc_agent.daemon.memory import Memory
from hpc_agent.domain.attempt import Attempt, attempt_for, parse_job_name
from hpc_agent.domain.decide import Sight
from hpc_agent.domain.ids import JobId, QueueId, TaskId
from hpc_agent.domain.job import JobRecord, LiveJob
from hpc_agent.domain.queue import Queue, QueueEntry
from hpc_agent.errors import SchedulerUnavailableError, ServerUnreachableError
from hpc_agent.files import CorruptFileError
from hpc_agent.logs import Events
from hpc_agent.retry import ONCE
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.schedulers.base import Scheduler

log = Events("observe")

ABANDONED_AFTER_S = 600.0
"""Longer than an agent outside the scheduler may take from its claim to the start of the task."""


@dataclass(frozen=True)
class World:
    """What one pass sees. ``waiting`` keeps each queue's order."""

    queues: Sequence[Queue]
    waiting: Mapping[QueueId, Sequence[Attempt]]
    sights: Mapping[Attempt, Sight]
    files: Mapping[Attempt, Files]


class Observer:
    def __init__(
        self, client: Client, scheduler: Scheduler, runs: RunsFolder, queues: Sequence[QueueId], clock: Clock
    ) -> None:
        self._client = client
        self._scheduler = scheduler
        self._runs = runs
        self._queues = queues
        self._clock = clock
        self._memory = Memory(clock)
        self._settled: set[Attempt] = set()

    def forget(self, attempt: Attempt) -> None:
        """It is settled: later passes need not read its folder."""
        self._settled.add(attempt)
        self._memory.forget(attempt)

    def look(self) -> World:
        """See everything once. The order matters: the queues come first, so that a task which a job claims meanwhile
        is never seen as gone from its queue without that job.

        Raises:
            ServerUnreachableError, SchedulerUnavailableError: nothing may be concluded; try the next pass.
        """
        queues = self._look_at_queues()
        entries = self._entries(queues)
        jobs = self._jobs()
        files = self._files(entries, jobs)
        claimed = [attempt for attempt, found in files.items() if found.claimed]
        statuses = self._client.tasks.glimpse(sorted({a.task for a in claimed}), budget=ONCE)
        records = self._records(files, jobs)
        sights = {
            attempt: self._sight(attempt, entries.get(attempt), tuple(jobs.get(attempt, ())), found, statuses, records)
            for attempt, found in files.items()
        }
        waiting = {queue.id: [a for e in queue.entries if (a := self._attempt(queue, e)) in sights] for queue in queues}
        return World(queues, waiting, sights, files)

    def _look_at_queues(self) -> list[Queue]:
        queues = self._client.queues.look(self._queues)
        missing = set(self._queues) - {queue.id for queue in queues}
        if missing:
            # An absence is no information: jobs of its tasks are not cancelled because an answer lacked a queue.
            raise ServerUnreachableError(
                f"the server does not show queue {', '.join(sorted(missing))}; was it deleted?"
            )
        return queues

    def _attempt(self, queue: Queue, entry: QueueEntry) -> Attempt:
        return attempt_for(self._scheduler.cluster(), queue.id, entry.task, entry.added)

    def _entries(self, queues: Iterable[Queue]) -> dict[Attempt, QueueEntry]:
        return {self._attempt(queue, entry): entry for queue in queues for entry in queue.entries}

    def _jobs(self) -> dict[Attempt, list[LiveJob]]:
        found: dict[Attempt, list[LiveJob]] = {}
        for job in self._scheduler.live_jobs():
            attempt = parse_job_name(job.name)
            if attempt is not None:
                found.setdefault(attempt, []).append(job)
        return found

    def _files(self, entries: Collection[Attempt], jobs: Collection[Attempt]) -> dict[Attempt, Files]:
        """The run directories that matter: of entries, of live jobs, and all of ours that are not settled."""
        found: dict[Attempt, Files] = {}
        for task in self._runs.tasks():
            for directory in self._runs.attempts(task):
                if directory.attempt not in self._settled:
                    self._add(found, directory.attempt)
        for attempt in {*entries, *jobs} - found.keys() - self._settled:
            self._add(found, attempt)
        return {attempt: files for attempt, files in found.items() if attempt in entries or self._is_ours(files)}

    def _is_ours(self, files: Files) -> bool:
        """Whether this daemon submitted it, or another that served the same queue of the same cluster.

        Of anything else the entries are not in sight: its absence from our queues says nothing. A claim without a
        submission (a refusal, an agent run by hand) becomes ours when it is older than any live claimer would wait.
        """
        record = files.submission
        claim = files.claim
        if record is None and claim is not None and claim.queue in self._queues:
            return (self._clock.now() - claim.at).total_seconds() > ABANDONED_AFTER_S
        if record is not None and (record.queue not in self._queues or record.cluster != self._scheduler.cluster()):
            # That never changes.
            self._settled.add(files.directory.attempt)
        return record is not None and files.directory.attempt not in self._settled

    def _add(self, found: dict[Attempt, Files], attempt: Attempt) -> None:
        try:
            files = read(self._runs.of(attempt))
        except (CorruptFileError, OSError) as error:
            log.error(
                "run directory cannot be read, leaving it alone", task=attempt.task, attempt=attempt.id, error=error
            )
            return
        if files.settled:
            self.forget(attempt)
        else:
            found[attempt] = files

    def _records(
        self, files: Mapping[Attempt, Files], jobs: Mapping[Attempt, Sequence[LiveJob]]
    ) -> Mapping[JobId, JobRecord]:
        """Terminal records of the jobs that left squeue, in one query."""
        gone: dict[JobId, datetime] = {}
        for attempt, found in files.items():
            if found.job and found.submission and not jobs.get(attempt):
                gone[found.job] = found.submission.at
        if not gone:
            return {}
        try:
            return self._scheduler.records(gone)
        except SchedulerUnavailableError as error:
            log.warning("no records, verdicts wait", jobs=len(gone), error=error)
            return {}

    def _sight(
        self,
        attempt: Attempt,
        entry: QueueEntry | None,
        jobs: tuple[LiveJob, ...],
        files: Files,
        statuses: Mapping[TaskId, Glimpse],
        records: Mapping[JobId, JobRecord],
    ) -> Sight:
        glimpse = statuses.get(attempt.task)
        sight = Sight(
            attempt,
            entry=entry,
            submitted=files.submitted,
            jobs=jobs,
            claimed=files.claimed,
            ended=files.ended,
            status=glimpse.status if glimpse else None,
            abort_requested=glimpse.abort_requested if glimpse else False,
            record=records.get(files.job) if files.job else None,
        )
        return self._memory.add_to(sight, files.directory)
