"""Observer of the cluster: queues, live jobs, run directories, server statuses, records of jobs that are gone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.daemon.run_state import RunDirectoryState, exit_evidence, read, run_owner
from hpc_agent.daemon.run_state_cache import RunStateCache
from hpc_agent.daemon.task_errors import UnreadableAttempt
from hpc_agent.daemon.task_owners import EntryFilter
from hpc_agent.domain.attempt import Attempt, attempt_for, parse_job_name
from hpc_agent.domain.ids import JobId, QueueId, TaskId
from hpc_agent.domain.job import JobRecord, LiveJob
from hpc_agent.domain.job_phase import JobSnapshot
from hpc_agent.domain.queue import Queue, QueueEntry
from hpc_agent.domain.snapshot import AttemptSnapshot
from hpc_agent.errors import SchedulerUnavailableError, ServerUnreachableError
from hpc_agent.file_records import CorruptFileError
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE
from hpc_agent.runs.attempt_records import ClaimRecord
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.runs.job_news import JobNews
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.watcher.history import ObservationHistory
from hpc_agent.watcher.identity import ExpectedJob, own_records
from hpc_agent.wire.task_state import TaskState

log = EventLog("observe")

SCAN_EVERY_S = 60.0
"""How often the open attempts are listed: only another daemon, or an agent run by hand, makes some that are not known
here."""
ABANDONED_AFTER_S = 600.0
"""Longer than an agent outside the scheduler may take from its claim to the start of the task."""


class ClusterSnapshot(msgspec.Struct, frozen=True):
    """Everything that one pass observed. ``waiting`` keeps each queue's order."""

    queues: Sequence[Queue]
    waiting: Mapping[QueueId, Sequence[Attempt]]
    queue_of: Mapping[Attempt, Queue]
    """Of each waiting attempt."""
    snapshots: Mapping[Attempt, AttemptSnapshot]
    files: Mapping[Attempt, RunDirectoryState]
    staging: Mapping[Attempt, JobSnapshot]
    """Jobs that stage for attempts."""
    unreadable: Mapping[Attempt, UnreadableAttempt]
    """Waiting tasks whose records, or whose state on the server, cannot be understood."""
    live: Sequence[LiveJob] = ()
    """All jobs that the scheduler lists."""


class ClusterObserver:
    def __init__(
        self,
        client: Client,
        scheduler: Scheduler,
        runs: RunsFolder,
        queues: Sequence[QueueId],
        clock: Clock,
        entries: EntryFilter | None = None,
    ) -> None:
        """``entries``: which entries of the queues this daemon serves; None: all."""
        self._client = client
        self._entries = entries
        self._scheduler = scheduler
        self._runs = runs
        self._queues = queues
        self._clock = clock
        self._history = ObservationHistory(clock)
        self._states = RunStateCache()
        self._news = JobNews(runs.path)
        self._last_queues: Sequence[Queue] = ()
        self._attempts: dict[tuple[QueueId, QueueEntry], Attempt] = {}
        """Of the entries that the last pass saw."""
        self._done: set[Attempt] = set()
        self._known: set[Attempt] = set()
        self._deleted: set[QueueId] = set()
        """Of our queues."""
        self._orphaned: dict[QueueId, bool] = {}
        """Queues that are not ours and have attempts here: whether they are deleted."""
        self._scanned_at = float("-inf")
        self._errors: dict[Attempt, Exception] = {}
        """Of this pass: what kept attempts from being seen."""

    def forget(self, attempt: Attempt) -> None:
        """Leave a done attempt out of later passes."""
        self._done.add(attempt)
        self._known.discard(attempt)
        self._history.forget(self._runs.of(attempt).observations)

    def remember(self, attempt: Attempt) -> None:
        """Have the next pass read the attempt's folder, whatever becomes of its entry."""
        self._known.add(attempt)
        self._states.drop(attempt)

    @property
    def orphaned(self) -> list[QueueId]:
        """Deleted queues, which no daemon serves: the daemon that finds their attempts concludes them."""
        return [queue for queue, deleted in self._orphaned.items() if deleted]

    def observe(self, served: Collection[QueueId] | None = None) -> ClusterSnapshot:
        """Observe once, for the queues that are ``served`` now (all when None).

        The order matters: the queues come first, so that a task which a job claims meanwhile is never seen as gone
        from its queue without that job.

        Raises:
            ServerUnreachableError, SchedulerUnavailableError: nothing may be concluded; try the next pass.
        """
        queues = [queue for queue in self._read_queues() if served is None or queue.id in served]
        self._last_queues = queues
        places = self._places(queues)
        entries = {attempt: entry for attempt, (_, entry) in places.items()}
        live = self._scheduler.live_jobs()
        jobs = _by_name(live)
        files = self._files(entries, jobs)
        self._confirm_jobs(files, jobs)
        jobs |= {attempt: [job] for attempt, job in self._renamed(files, live).items() if attempt not in jobs}
        if served is not None:
            files = {a: found for a, found in files.items() if a in entries or found.queue in served}
        claimed = [attempt for attempt, found in files.items() if found.claimed]
        statuses = self._client.tasks.get_states(sorted({a.task for a in claimed}), budget=ONCE)
        staging = _staging_jobs(files, live)
        records = self._records(files, jobs, staging)
        snapshots = {}
        for attempt, found in files.items():
            of_it = tuple(jobs.get(attempt, ()))
            try:
                snapshots[attempt] = self._snapshot(attempt, entries.get(attempt), of_it, found, statuses, records)
            except (ServerUnreachableError, SchedulerUnavailableError):
                raise
            except Exception as error:  # noqa: BLE001 - one poisoned task must not hold up all queues
                log.error("task.unreadable", task=attempt.task, attempt=attempt.id, error=error, trace=True)
                self._errors[attempt] = error
        queue_of = {attempt: queue for attempt, (queue, _) in places.items()}
        waiting: dict[QueueId, list[Attempt]] = {queue.id: [] for queue in queues}
        for attempt, queue in queue_of.items():
            if attempt in snapshots:
                waiting[queue.id].append(attempt)
        unreadable = {
            attempt: UnreadableAttempt(queue_of[attempt], error, bool(jobs.get(attempt)))
            for attempt, error in self._errors.items()
            if attempt in queue_of
        }
        observed = {attempt: self._staging_snapshot(files[attempt], jobs, records) for attempt, jobs in staging.items()}
        return ClusterSnapshot(queues, waiting, queue_of, snapshots, files, observed, unreadable, live)

    def has_news(self) -> bool:
        """Whether a queue changed, or a job ended, since the last ``observe``.

        Raises:
            ServerUnreachableError: that is not known.
        """
        now = {queue.id: queue for queue in self._read_queues()}
        changed = any(now.get(queue.id) != queue for queue in self._last_queues)
        return self._news.take(self._queues) or changed

    def _staging_snapshot(
        self, files: RunDirectoryState, jobs: tuple[LiveJob, ...], records: Mapping[JobId, JobRecord]
    ) -> JobSnapshot:
        assert files.staging is not None
        submitted = files.staging.submitted
        own = (records[submitted.job],) if submitted.job and submitted.job in records else ()
        snapshot = JobSnapshot(submitted=submitted, jobs=jobs, records=own)
        return self._history.extend(snapshot, files.directory.staging_observations)

    def _read_queues(self) -> list[Queue]:
        wanted = [queue for queue in self._queues if queue not in self._deleted]
        queues = self._client.queues.get_many(wanted)
        for queue in sorted(set(wanted) - {queue.id for queue in queues}):
            if not self._client.queues.is_deleted(queue):
                # An absence is not information: jobs of its tasks are not cancelled because an answer lacked a queue.
                raise ServerUnreachableError(f"the server left queue {queue} out of its answer, but has it")
            log.warning("queue.deleted", queue=queue)
            self._deleted.add(queue)
        return queues if self._entries is None else [self._entries(queue) for queue in queues]

    def _places(self, queues: Sequence[Queue]) -> dict[Attempt, tuple[Queue, QueueEntry]]:
        """The attempt of each entry."""
        cluster, before, self._attempts = self._scheduler.cluster(), self._attempts, {}
        places = {}
        for queue in queues:
            for entry in queue.entries:
                key = (queue.id, entry)
                attempt = before.get(key) or attempt_for(cluster, queue.id, entry.task, entry.added)
                self._attempts[key] = attempt
                places[attempt] = (queue, entry)
        return places

    def _confirm_jobs(
        self, files: Mapping[Attempt, RunDirectoryState], jobs: Mapping[Attempt, Sequence[LiveJob]]
    ) -> None:
        """Write down that a job has our name, while it has it."""
        for attempt, found in files.items():
            submission = found.submission
            if submission is None or submission.known or submission.state != "accepted":
                continue
            if any(job.id == submission.job for job in jobs.get(attempt, ())):
                with suppress(OSError):  # the next pass sees it again
                    found.directory.write_submission(msgspec.structs.replace(submission, known=True))

    def _renamed(self, files: Mapping[Attempt, RunDirectoryState], live: Sequence[LiveJob]) -> dict[Attempt, LiveJob]:
        """Jobs that changed their names since they were confirmed."""
        listed = {job.id: job for job in live if parse_job_name(job.name) is None}
        found = {attempt: listed.get(state.job or JobId("")) for attempt, state in files.items() if state.submission}
        return {a: job for a, job in found.items() if job is not None and self._expected(files[a]).is_renamed(job)}

    def _files(
        self, entries: Collection[Attempt], jobs: Mapping[Attempt, Sequence[LiveJob]]
    ) -> dict[Attempt, RunDirectoryState]:
        """The run directories that matter: of entries, of live jobs, and all of ours that are not settled."""
        self._errors = {}
        all_listed = self._scan()
        found: dict[Attempt, RunDirectoryState] = {}
        # In an order that can be repeated: the queues' own, then the other known attempts.
        for attempt in dict.fromkeys([*entries, *jobs, *sorted(self._known)]):
            if attempt not in self._done:
                self._add(found, attempt, has_entry=attempt in entries, jobs=jobs.get(attempt, ()))
        if all_listed:
            self._index({*found, *self._errors})
        self._known = {a for a, files in found.items() if files.submission or files.claim or files.staging}
        return {attempt: files for attempt, files in found.items() if attempt in entries or self._is_ours(files)}

    def _scan(self) -> bool:
        """Take up attempts that others made; whether all run directories were listed for that."""
        now = self._clock.monotonic()
        if now - self._scanned_at < SCAN_EVERY_S:
            return False
        self._scanned_at = now
        self._states.clear()
        loaded = self._runs.open_attempts.load()
        if loaded is not None:
            self._known |= loaded - self._done
            return False
        for task in self._runs.tasks():
            self._known |= {directory.attempt for directory in self._runs.attempts(task)} - self._done
        return True

    def _index(self, attempts: Collection[Attempt]) -> None:
        """After all were listed: these are not settled, or cannot be read."""
        index = self._runs.open_attempts
        with suppress(OSError):  # they are listed again the next time
            for attempt in attempts:
                if self._runs.of(attempt).path.is_dir():
                    index.add(attempt)
            index.mark_complete()

    def _is_ours(self, files: RunDirectoryState) -> bool:
        """Whether this daemon submitted it, or another that served the same queue of the same cluster.

        Of anything else the entries are not in snapshot: its absence from our queues says nothing.
        """
        claim = files.claim
        if not files.queue or (files.submission is None and claim and not self._is_abandoned(claim)):
            return False
        elsewhere = (files.job or files.staging) is not None and files.cluster != self._scheduler.cluster()
        if elsewhere or not (files.queue in self._queues or self._is_orphaned(QueueId(files.queue))):
            # That never changes.
            self.forget(files.directory.attempt)
            return False
        return True

    def _is_orphaned(self, queue: QueueId) -> bool:
        if queue not in self._orphaned:
            self._orphaned[queue] = self._client.queues.is_deleted(queue)
        return self._orphaned[queue]

    def _is_abandoned(self, claim: ClaimRecord) -> bool:
        """Whether no agent that runs the task by hand can still be about to start it."""
        by_hand = claim.owner.startswith("agent:")
        return not by_hand or (self._clock.now() - claim.at).total_seconds() > ABANDONED_AFTER_S

    def _add(
        self, found: dict[Attempt, RunDirectoryState], attempt: Attempt, *, has_entry: bool, jobs: Sequence[LiveJob]
    ) -> None:
        kept = self._states.get(attempt, has_entry=has_entry, jobs=jobs)
        if kept is not None:
            found[attempt] = kept
            return
        try:
            files = read(self._runs.of(attempt))
        except (CorruptFileError, OSError) as error:
            log.error("attempt.unreadable", task=attempt.task, attempt=attempt.id, error=error)
            self._errors[attempt] = error
            return
        if files.settled:
            self._runs.open_attempts.remove(attempt)
            self.forget(attempt)
        else:
            found[attempt] = files
            self._states.keep(attempt, files, has_entry=has_entry, jobs=jobs)

    def _records(
        self,
        files: Mapping[Attempt, RunDirectoryState],
        jobs: Mapping[Attempt, Sequence[LiveJob]],
        staging: Mapping[Attempt, Sequence[LiveJob]],
    ) -> Mapping[JobId, JobRecord]:
        """What is known of the jobs that are listed no more."""
        gone = {state.job: self._expected(state) for a, state in files.items() if state.job and not jobs.get(a)}
        for attempt, listed in staging.items():
            record = files[attempt].staging
            if record is not None and record.job and not listed:
                expected = ExpectedJob(attempt.staging_job_name, record.at, confirmed=True, has_unique_name=True)
                gone[JobId(record.job)] = expected
        return own_records(self._scheduler, gone)

    def _expected(self, files: RunDirectoryState) -> ExpectedJob:
        at = files.submission.at if files.submission else files.claim.at if files.claim else self._clock.now()
        return ExpectedJob(
            files.directory.attempt.job_name,
            since=min(at, self._clock.now()),
            confirmed=files.is_job_known,
            has_unique_name=True,
        )

    def _snapshot(
        self,
        attempt: Attempt,
        entry: QueueEntry | None,
        jobs: tuple[LiveJob, ...],
        files: RunDirectoryState,
        statuses: Mapping[TaskId, TaskState],
        records: Mapping[JobId, JobRecord],
    ) -> AttemptSnapshot:
        get_states = statuses.get(attempt.task)
        snapshot = AttemptSnapshot(
            attempt,
            entry=entry,
            submitted=files.submitted,
            jobs=jobs,
            claimed=files.claimed,
            ended=files.ended,
            status=get_states.status if get_states else None,
            run_owner=run_owner(files, get_states),
            abort_requested=get_states.abort_requested if get_states else False,
            records=(records[files.job],) if files.job and files.job in records else (),
        )
        if not jobs and files.submission:
            # Only of a job that is gone is more to be known, and few of those are not settled yet.
            snapshot = replace(
                snapshot, evidence=exit_evidence(files.directory), requeues_used=self._requeues_used(files)
            )
        if snapshot.submitted is None and snapshot.claimed is None and snapshot.entry is not None:
            return snapshot  # it waits to be submitted
        return self._history.extend(snapshot, files.directory.observations)

    def _requeues_used(self, files: RunDirectoryState) -> int:
        """Without one that was counted for this very end: its executor asked for a requeue without success, or a daemon
        died right after it decided."""
        directory, start = files.directory, files.claim.restart_count if files.claim else 0
        try:
            return len(set(directory.requeue_budget().requeues) - {directory.requeue_key(start)})
        except (CorruptFileError, OSError) as error:
            log.error("attempt.restarts_unreadable", directory=files.directory.path, error=error)
            return 0


def _by_name(live: Iterable[LiveJob]) -> dict[Attempt, list[LiveJob]]:
    found: dict[Attempt, list[LiveJob]] = {}
    for job in live:
        attempt = parse_job_name(job.name)
        if attempt is not None:
            found.setdefault(attempt, []).append(job)
    return found


def _staging_jobs(
    files: Mapping[Attempt, RunDirectoryState], live: Iterable[LiveJob]
) -> dict[Attempt, tuple[LiveJob, ...]]:
    """The listed jobs of each attempt that has a staging job."""
    by_name = {attempt.staging_job_name: attempt for attempt, state in files.items() if state.staging is not None}
    found: dict[Attempt, tuple[LiveJob, ...]] = dict.fromkeys(by_name.values(), ())
    for job in live:
        if job.name in by_name:
            found[by_name[job.name]] += (job,)
    return found
