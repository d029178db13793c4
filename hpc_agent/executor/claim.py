"""Claim of a task: exactly one of all that try may run it (docs/architecture.md#claim)."""

from __future__ import annotations

from datetime import datetime

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task
from hpc_agent.errors import InputError, ServerUnreachableError
from hpc_agent.executor.agent_identity import AgentIdentity
from hpc_agent.file_records import CorruptFileError
from hpc_agent.logs import EventLog
from hpc_agent.process_id import process_id
from hpc_agent.runs.attempt_records import ClaimRecord, ExitReport
from hpc_agent.runs.directory import FileVersion, RunDirectory, RunsFolder
from hpc_agent.wire.task_state import RUN_TOKEN, TaskState

log = EventLog("claim")

UNCERTAIN_WAIT_S = 45.0
"""Seconds of answered looks. Another winner writes its token and starts the task within a second of an answer, or finds
ours: it looks before either (``Reporter.start``), and the later token counts."""


_SIBLING_S = 15.0
"""Seconds from taking a task off its queue to the record of it, at most: a request and a file."""

JUST_TAKEN_OVER_S = 60.0
"""Clocks of nodes and of the daemon's host may differ."""


class Moment(msgspec.Struct, frozen=True):
    """Moment on both clocks: one of them goes on while the machine is suspended, the other is never set back."""

    wall: datetime
    monotonic: float

    @classmethod
    def now(cls, clock: Clock) -> Moment:
        return cls(clock.now(), clock.monotonic())

    def seconds_ago(self, clock: Clock) -> float:
        return max(abs((clock.now() - self.wall).total_seconds()), clock.monotonic() - self.monotonic)


class Won(msgspec.Struct, frozen=True):
    """Result of a claim that succeeded."""

    claim: ClaimRecord
    resumed: bool = False
    """The scheduler started the same job again."""
    silent: bool = False
    """The run before left no report, or was taken from its executor a moment ago: it may still live on a node that the
    scheduler takes for dead."""
    taken_at: Moment | None = None
    """Just before the task, which had no run before, was taken off its queue, with a clear answer; else None."""


class Lost(msgspec.Struct, frozen=True):
    """Result of a claim that failed: the task is not ours to run."""

    reason: str
    """What is known of the task, to go on after "the task was not run: "."""
    by_this_job: bool = False
    """Another process or start of this very job runs the task, or ran it to its end."""


class Claimer:
    """Claims a task for one executor, with its intent on disk before each step."""

    def __init__(self, client: Client, run: RunDirectory, identity: AgentIdentity, clock: Clock) -> None:
        self._client = client
        self._run = run
        self._identity = identity
        self._clock = clock
        self._in_doubt = False

    def claim(self, task: Task, *, require_queue: bool) -> Won | Lost:
        """Take ``task``.

        Raises:
            InputError: it cannot be run as asked (running already, published) and no queue is involved.
            ServerUnreachableError: nothing is decided; the claim's intent stays on disk, and the daemon or the next
                start of this job goes on from it.
        """
        before = self._run.claim()
        if before is not None and self._is_over(before):
            # The same job or terminal runs it again.
            self._run.drop_claim()
            self._run.drop_exit_report()
            before = None
        if before is not None:
            taken = self._taken(before)
            if taken:
                return Lost(taken, by_this_job=before.owner == self._identity.owner)
            if before.state == "won":
                return self._resume(task, before)
        if task.status is TaskStatus.QUEUED or self._was_started_late(task):
            return self._from_queue(task, before)
        if require_queue:
            return Lost(_not_queued(task.status), by_this_job=self._is_this_jobs(task))
        return self._unqueued(task)

    def _is_this_jobs(self, task: Task) -> bool:
        """Whether another process of this job runs it, or in a step of several processes has run it: not an earlier
        command of the same allocation."""
        if task.status is not TaskStatus.IN_PROGRESS and self._identity.step_processes == 1:
            return False
        return "won" in self._states_of_this_jobs_claims(task)

    def _was_started_late(self, task: Task) -> bool:
        """Whether it shows as running though it was put back to its queue: by a start of a job that was taken for dead,
        and that was just about to set it started. It has ended since; the queue is the source of truth.

        Not one that runs elsewhere and is in a queue by mistake.
        """
        if task.status is not TaskStatus.IN_PROGRESS:
            return False
        seen = self._client.tasks.get_states([task.id]).get(task.id)
        if seen is None or not seen.run_token or self._is_anothers(seen):
            return False
        ours = {claim.worker for claim in self._claims_of(task) if claim}
        return seen.last_worker in ("", *ours) and self._client.queues.queue_of(task.id) is not None

    def _is_anothers(self, seen: TaskState) -> bool:
        """Whether the server shows the run of another attempt, which still has the task."""
        attempt = seen.run_token.partition(".")[0]
        if attempt in ("", self._run.attempt.id):
            return False
        claim = _claim_in(RunDirectory(self._run.path.with_name(attempt)))
        return claim is None or claim.state != "over"

    def _claims_of(self, task: Task) -> list[ClaimRecord | None]:
        """Of all attempts that share this run folder."""
        return [_claim_in(run) for run in RunsFolder(self._run.path.parent.parent).attempts(task.id)]

    def _states_of_this_jobs_claims(self, task: Task) -> set[str]:
        return {claim.state for claim in self._claims_of(task) if claim and claim.owner == self._identity.owner}

    def _is_over(self, before: ClaimRecord) -> bool:
        """Whether this very start of our job has run it to its end before."""
        same = (before.state, before.owner, before.restart_count) == (
            "won",
            self._identity.owner,
            self._identity.restart_count,
        )
        report = self._run.exit_report() if same else None
        return report is not None and report.cause is None

    def _taken(self, before: ClaimRecord) -> str:
        """Why a claim that is there keeps us out, or nothing."""
        if before.owner != self._identity.owner:
            return f"{before.owner} on {before.host or 'another host'} has claimed it"
        if before.state == "over":
            return "its daemon has taken the task from this job"
        if before.restart_count > self._identity.restart_count:
            return "a later start of this job has it"
        if before.restart_count == self._identity.restart_count and not self._is_dead(before):
            return f"another process of this job, on {before.host}, has claimed it"
        return ""

    def _is_dead(self, before: ClaimRecord) -> bool:
        import psutil  # only after an earlier start

        runs = before.process.is_running() if before.process else psutil.pid_exists(before.pid)
        return before.host == self._identity.host and not runs

    def _resume(self, task: Task, before: ClaimRecord) -> Won | Lost:
        report = self._run.exit_report()
        if report is not None and report.cause is None:
            return Lost(f"this job already ran it to its end: {report.reason}", by_this_job=True)
        if task.status not in (TaskStatus.IN_PROGRESS, TaskStatus.QUEUED):
            return Lost(f"it is {task.status.value}")
        if why := self._has_gone_on(task):
            return Lost(why)
        silent = before.process_may_run if report is None else report.ranks_may_run
        claim = msgspec.structs.replace(self._record("won", task), predecessor_may_run=silent)
        self._run.write_claim(claim)
        self._run.drop_exit_report()
        return Won(claim, resumed=True, silent=silent)

    def _has_gone_on(self, task: Task) -> str:
        """What has become of a task that its user reset and enqueued while our job waited for its next start."""
        seen = self._client.tasks.get_states([task.id]).get(task.id)
        if seen is not None and seen.status is TaskStatus.IN_PROGRESS and self._is_anothers(seen):
            return f"run {seen.run_token} has the task now"
        holder = self._client.queues.queue_of(task.id)
        return f"it is in queue {holder.name} again" if holder else ""

    def _from_queue(self, task: Task, before: ClaimRecord | None) -> Won | Lost:
        taken_at = Moment.now(self._clock)
        intent = self._record("intent", task)
        if before is None and not self._run.create().first_claim(intent):
            return self._lost_to(_claim_in(self._run), "another job has claimed it")
        # With an intent of our own from before, a missing entry was most probably taken by this job.
        if not self._remove(task) and (before is None or not self._removed_in_doubt(task)):
            self._run.drop_claim()
            return Lost("another agent took it off its queue", by_this_job=self._is_a_siblings(task))
        won = self._record("won", task)
        self._run.write_claim(won)
        silent = self._was_just_taken_over(task)
        is_first = task.status is TaskStatus.QUEUED and not task.runtime.get(RUN_TOKEN) and before is None
        is_certain = is_first and not self._in_doubt and not silent
        return Won(won, silent=silent, taken_at=taken_at if is_certain else None)

    def _is_a_siblings(self, task: Task) -> bool:
        """Whether another process of this job took it off its queue; it writes that down just after it."""
        until = self._clock.monotonic() + _SIBLING_S
        while True:
            states = self._states_of_this_jobs_claims(task)
            if "won" in states or "intent" not in states or self._clock.monotonic() >= until:
                return "won" in states
            self._clock.sleep(0.1)

    def _was_just_taken_over(self, task: Task) -> bool:
        """Whether a daemon took the task a moment ago from an attempt whose process may have run. Its executor notices
        that within seconds, if it lives."""
        now = self._clock.now()
        return any(
            abs((now - report.at).total_seconds()) <= JUST_TAKEN_OVER_S
            for run in RunsFolder(self._run.path.parent.parent).attempts(task.id)
            if (claim := _claim_in(run))
            and claim.state == "over"
            and claim.process_may_run
            and (report := _report_in(run))
        )

    def _record(self, state: str, task: Task) -> ClaimRecord:
        return ClaimRecord(
            state="won" if state == "won" else "intent",
            at=self._clock.now(),
            owner=self._identity.owner,
            restart_count=self._identity.restart_count,
            queue=task.queue or "",
            cluster=self._identity.cluster,
            host=self._identity.host,
            pid=self._identity.pid,
            process=process_id(self._identity.pid),
            worker=self._identity.worker,
            predecessors=self._predecessors(task),
        )

    def _predecessors(self, task: Task) -> tuple[str, ...]:
        claims = [claim for claim in self._claims_of(task) if claim]
        names = {name for claim in claims for name in (claim.worker, *claim.predecessors)}
        return tuple(sorted(names - {"", self._identity.worker}))

    def _remove(self, task: Task) -> bool:
        """The compare-and-set, on the queue the task names, else on the one that holds it."""
        queues = self._client.queues
        try:
            if task.queue and queues.remove_task(task.queue, task.id):
                return True
            holder = queues.queue_of(task.id)
            return holder is not None and queues.remove_task(holder.id, task.id)
        except ServerUnreachableError as error:
            if not error.uncertain:
                raise
            log.warning("claim.unclear", task=task.id, error=error)
        return self._removed_in_doubt(task)

    def _removed_in_doubt(self, task: Task) -> bool:
        """Our removal may have happened: the answer was lost, or we died before it came.

        Still in its queue: it did not. Otherwise another run that has it writes its token, or sets it ``in_progress``,
        within seconds; if none does, it was us.
        """
        self._in_doubt = True
        queues = self._client.queues
        # As read before the removal: the winner may have set its run token before the first look, which can be late.
        before = str(task.runtime.get(RUN_TOKEN) or "")
        waited = 0.0
        while waited <= UNCERTAIN_WAIT_S:
            holder = queues.queue_of(task.id)
            if holder is not None:
                return queues.remove_task(holder.id, task.id)
            seen = self._client.tasks.get_states([task.id]).get(task.id)
            if seen is None or (seen.status, seen.run_token) != (task.status, before):
                return False
            self._clock.sleep(1.0)
            waited += 1.0
        return True

    def _unqueued(self, task: Task) -> Won | Lost:
        if task.status is TaskStatus.IN_PROGRESS:
            raise InputError(f"task {task.id} is running already; abort or reset it first")
        if task.status in (TaskStatus.PUBLISHED, TaskStatus.PUBLISHING):
            raise InputError(f"task {task.id} is published and cannot run again; clone it")
        won = self._record("won", task)
        if not self._run.create().first_claim(won):
            return self._lost_to(_claim_in(self._run), "another process has claimed it")
        return Won(won)

    def _lost_to(self, winner: ClaimRecord | None, reason: str) -> Lost:
        return Lost(reason, by_this_job=winner is not None and winner.owner == self._identity.owner)


def _not_queued(status: TaskStatus) -> str:
    """Why a task in this status cannot be taken off a queue, and what to do about it."""
    if status is TaskStatus.CREATED:
        return "it is a draft, not queued; enqueue it first"
    if status is TaskStatus.IN_PROGRESS:
        return "it is running, not queued: another agent has it"
    if status in (TaskStatus.PUBLISHED, TaskStatus.PUBLISHING):
        return f"it is {status.value}, not queued; clone it and enqueue the clone"
    return f"it is {status.value}, not queued; enqueue it to run it again"


def _claim_in(run: RunDirectory) -> ClaimRecord | None:
    try:
        return run.claim()
    except (CorruptFileError, OSError):
        return None


def _report_in(run: RunDirectory) -> ExitReport | None:
    try:
        return run.exit_report()
    except (CorruptFileError, OSError):
        return None


def still_ours(run: RunDirectory, claim: ClaimRecord) -> bool:
    """Whether the task is still this process's. A claim that cannot be read is not taken for a loss."""
    try:
        now = run.claim()
    except (CorruptFileError, OSError):
        return True
    return now is None or (now.state, now.owner, now.restart_count) == ("won", claim.owner, claim.restart_count)


class ClaimWatch:
    """``still_ours``, asked again and again: the file is opened each time, and read where it is another one."""

    def __init__(self, run: RunDirectory, claim: ClaimRecord) -> None:
        self._run = run
        self._claim = claim
        self._seen: tuple[FileVersion, bool] | None = None
        """The version that was read last, and the answer."""

    def still_ours(self) -> bool:
        version = self._run.claim_version()
        seen = self._seen
        if version is None or seen is None or seen[0] != version:
            # The version first: one that is replaced between the two is read again the next time.
            seen = (version or (0, 0, 0), still_ours(self._run, self._claim))
            self._seen = seen if version else None
        return seen[1]
