"""Submissions of a pass: which waiting tasks become jobs now, and what each answer of the scheduler means for the next.

Tasks are prepared one after another and handed over side by side, as many at a time as the scheduler takes
(``Capacity.at_once``). The first goes alone, and each job that is accepted lets one more go at the same time: a
controller that is frozen, or a limit that is met, costs few calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent import futures
from functools import partial

import msgspec
from msgspec.structs import replace

from hpc_agent.cancellation import in_background
from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.daemon.act import Actor
from hpc_agent.daemon.array_batches import ArraySizes, Batches
from hpc_agent.daemon.head_starts import LeftToOthers
from hpc_agent.daemon.login_staging import StagingBackend
from hpc_agent.daemon.observe import ClusterSnapshot
from hpc_agent.daemon.pilot_submissions import PilotRound, PilotSubmissions
from hpc_agent.daemon.served_queues import Activity
from hpc_agent.daemon.submission_round import MOST_FAILURES, Answer, SubmissionRound
from hpc_agent.daemon.submitter import CapacityAllocator, PreparedJob, Submitter
from hpc_agent.daemon.task_errors import TaskErrorReporter
from hpc_agent.daemon.task_owners import TaskOwners
from hpc_agent.daemon.waiting_tasks import WaitingTasks
from hpc_agent.domain.actions import SetStatusMessage
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.capacity import Capacity, QueueCandidates, choose, held_back, rotated, shared_out
from hpc_agent.domain.decide import explain_doubt
from hpc_agent.domain.ids import QueueId
from hpc_agent.domain.job import Accepted, LimitReached, OutcomeUnknown, Refused, UnclearAnswer
from hpc_agent.domain.queue import Queue
from hpc_agent.errors import (
    ContainerError,
    EnvironmentBuildError,
    InputError,
    ResourceError,
    ServerUnreachableError,
    SourceError,
    TemplateError,
    UserMapError,
)
from hpc_agent.logs import EventLog
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.schedulers.pilots.board import task_number

log = EventLog("daemon")

POSTPONED_S = 30.0
"""How long a queue's tasks wait after the scheduler said that a limit is met, or gave no answer."""
LONGEST_PAUSE_S = 480.0
"""The most that a queue waits where each try meets the limit again and no job of it ends."""
_READ_AHEAD = 50
"""Tasks that are read in one request: they are submitted within a second or two."""
_TASK_ERRORS = (
    *(UserMapError, ResourceError, TemplateError, SourceError, EnvironmentBuildError, ContainerError, InputError),
)
"""Errors that make a task impossible as it is: it is failed with the sentence, and others go on."""

Guard = Callable[[ClusterSnapshot, Attempt, Callable[[], None]], bool]
"""Calls for one attempt and keeps its error from the others; False if server or scheduler gave no answer."""


class _Limit(msgspec.Struct, frozen=True):
    """``live``: jobs of the queue when the limit was met; ``listed``: all jobs of the user, who may have others.
    ``pause``: seconds until the next try."""

    live: int
    listed: int
    pause: float


class Submissions:
    def __init__(
        self,
        submitter: Submitter,
        scheduler: Scheduler,
        staging: StagingBackend | None,
        actor: Actor,
        waiting: WaitingTasks,
        pilots: PilotSubmissions,
        task_errors: TaskErrorReporter,
        activity: Activity,
        owners: TaskOwners,
        settings: HpcSettings,
        guarded: Guard,
        remember: Callable[[Attempt], None],
        clock: Clock,
        *,
        fair: bool,
    ) -> None:
        """
        Args:
            guarded: runs what concerns one attempt.
            remember: has the next pass read the attempt's folder.
            fair: each queue gives one in turn.
        """
        self._submitter = submitter
        self._scheduler = scheduler
        self._staging = staging
        self._actor = actor
        self._waiting = waiting
        self._pilots = pilots
        self._task_errors = task_errors
        self._activity = activity
        self._runs = RunsFolder(settings.runs)
        self._settings = settings
        self._guarded = guarded
        self._remember = remember
        self._owners = owners
        self._clock = clock
        self._fair = fair
        self._last_served: QueueId | None = None
        self._postponed_until: dict[QueueId, float] = {}
        self._sizes = ArraySizes()
        self._limits: dict[QueueId, _Limit] = {}
        """Those of the scheduler that submissions met last."""

    def submit(
        self, cluster: ClusterSnapshot, due: Mapping[Attempt, int], is_stopping: Callable[[], bool], *, waits: bool
    ) -> bool:
        """In turn, while server and scheduler answer; False if limits hold all of them back.

        Args:
            due: the number of each one's submission.
            waits: for stages.
        """
        capacity = self._scheduler.room()
        batches = Batches(self._sizes, self._submitter.array_size() if len(due) > 1 else 0)
        round = SubmissionRound(cluster, due, CapacityAllocator(capacity), capacity.at_once, waits, batches)
        lanes = self._lanes(round)
        limited = {queue.id for queue in cluster.queues if self._is_postponed(queue)}
        pilots = self._pilots.begin(cluster, lanes, _live(cluster), limited)
        self._run_for_pilots(round, pilots, is_stopping)
        others = [lane for lane in lanes if lane not in pilots.lanes]
        chosen = self._choose(round, others, self._settings.max_jobs - pilots.own_jobs)
        self._run(round, chosen, is_stopping)
        return bool(pilots.tried or chosen)

    def _run_for_pilots(self, round: SubmissionRound, pilots: PilotRound, is_stopping: Callable[[], bool]) -> None:
        """Of tasks in pilots the scheduler is not asked, and one after the other they keep their order."""
        space, batches = CapacityAllocator(Capacity()), Batches(self._sizes, 0)
        of_pilots = replace(round, space=space, at_once=1, batches=batches, pilots=pilots)
        run = partial(self._run, of_pilots, is_stopping=is_stopping)
        self._show_held_back(round.cluster, self._pilots.hand_over(pilots, round.cluster, run))
        round.failures, round.is_unclear, round.listed = of_pilots.failures, of_pilots.is_unclear, of_pilots.listed

    def _run(self, round: SubmissionRound, chosen: Sequence[Attempt], is_stopping: Callable[[], bool]) -> bool:
        """Submit these; False if no other one can be submitted in this pass."""
        cluster, batches = round.cluster, round.batches
        for position, attempt in enumerate(chosen):
            if not position % _READ_AHEAD:
                self._read_ahead(round, chosen[position : position + _READ_AHEAD])
            while round.is_full:
                self._finish(round)
            if is_stopping() or round.is_over:
                break
            # What postpones a queue with pilots concerns its jobs that run in none.
            if round.pilots is not None or not self._is_postponed(cluster.queue_of[attempt]):
                self._try(round, attempt, partial(self._start, round, attempt))
            for batch in batches.take_full():
                self._hand_over(round, batch)
        for batch in batches.take_all():
            self._hand_over(round, batch)
        while round.under_way:
            self._finish(round)
        for queue in round.limited & self._limits.keys():
            self._limits[queue] = replace(self._limits[queue], live=round.live_of[queue], listed=round.listed)
        return not (round.is_over or is_stopping())

    def _lanes(self, round: SubmissionRound) -> list[QueueCandidates]:
        """The queues with what is due of each."""
        cluster, due = round.cluster, round.due
        if not due:
            return []
        active = self._activity.of(cluster.queues)
        due_now = due.keys() - self._waiting.shelved()
        live = _live(cluster)
        in_all = Counter(_queue_id(cluster, attempt) for attempt in live)
        jobs = (attempt for attempt in live if not self._pilots.runs(cluster, attempt))
        round.live_of = Counter(_queue_id(cluster, attempt) for attempt in jobs)
        round.listed = sum(task_number(job.id) is None for job in cluster.live)
        self._forget_limits(round)
        lanes = [
            QueueCandidates(
                queue.id,
                self._in_order(cluster, queue, due_now, live),
                in_all[queue.id],
                self._settings.queue(queue.name).max_jobs,
            )
            for queue in cluster.queues
            if queue.id in active and (self._pilots.serves(queue) or not self._is_postponed(queue))
        ]
        return rotated(lanes, self._last_served) if self._fair else lanes

    def _choose(self, round: SubmissionRound, lanes: Sequence[QueueCandidates], live: int) -> list[Attempt]:
        """``live``: jobs that the scheduler has already."""
        limit = self._settings.max_jobs
        chosen = choose(lanes, live, limit, fair=self._fair)
        self._show_held_back(round.cluster, held_back(lanes, chosen, limit))
        return chosen

    def _show_held_back(self, cluster: ClusterSnapshot, messages: Mapping[Attempt, str]) -> None:
        for attempt, message in messages.items():
            say = partial(self._waiting.say, attempt, SetStatusMessage(message), self._runs.of(attempt))
            self._guarded(cluster, attempt, say)

    def _in_order(
        self, cluster: ClusterSnapshot, queue: Queue, due: Collection[Attempt], live: Sequence[Attempt]
    ) -> tuple[Attempt, ...]:
        """The queue's tasks that are due, in the order in which they are to run."""
        found = tuple(attempt for attempt in cluster.waiting[queue.id] if attempt in due)
        share_by = self._settings.queue(queue.name).share_by
        if not share_by or len(found) < 2:
            return found
        of_queue = [attempt for attempt in live if _queue_id(cluster, attempt) == queue.id]
        owners = self._owners.owners([attempt.task for attempt in (*found, *of_queue)])

        def owner_of(attempt: Attempt) -> str:
            owner = owners.get(attempt.task)
            return "" if owner is None else owner.user if share_by == "user" else owner.project

        return tuple(shared_out(found, owner_of, Counter(map(owner_of, of_queue))))

    def _is_postponed(self, queue: Queue) -> bool:
        return self._clock.monotonic() < self._postponed_until.get(queue.id, 0.0)

    def _postpone(self, queue: Queue, seconds: float = POSTPONED_S) -> None:
        self._postponed_until[queue.id] = self._clock.monotonic() + seconds

    def _meet_limit(self, round: SubmissionRound, queue: Queue) -> None:
        """Wait for a job of the queue, or any other of the user, to end; else for longer each time: other users may use
        up the same limit."""
        if queue.id in round.limited:
            return
        round.limited.add(queue.id)
        before = self._limits.get(queue.id)
        pause = POSTPONED_S if before is None else min(2 * before.pause, LONGEST_PAUSE_S)
        self._limits[queue.id] = _Limit(round.live_of[queue.id], round.listed, pause)
        self._postpone(queue, pause)

    def _forget_limits(self, round: SubmissionRound) -> None:
        for queue, limit in list(self._limits.items()):
            if round.live_of[queue] < limit.live or round.listed < limit.listed:
                del self._limits[queue]
                self._postponed_until.pop(queue, None)

    def _read_ahead(self, round: SubmissionRound, attempts: Sequence[Attempt]) -> None:
        if round.is_over:
            return
        try:
            self._submitter.read_ahead(attempts, one_by_one=not round.batches.are_possible)
        except ServerUnreachableError as error:
            log.warning("tasks.no_answer", count=len(attempts), error=error)
            round.failures = MOST_FAILURES

    def _try(self, round: SubmissionRound, attempt: Attempt, act: Callable[[], None]) -> None:
        if not self._guarded(round.cluster, attempt, act):
            # Perhaps only this task fails so: the next passes try others first.
            self._waiting.shelve(attempt, POSTPONED_S)
            round.failures += 1

    def _start(self, round: SubmissionRound, attempt: Attempt) -> None:
        queue, number = round.cluster.queue_of[attempt], round.due[attempt]
        self._remember(attempt)
        try:
            job = self._submitter.prepare(attempt, queue, self._runs.of(attempt), number, round.space, wait=round.waits)
        except _TASK_ERRORS as error:
            self._waiting.fail(queue, attempt, str(error))
            return
        self._task_errors.forget(attempt)
        if isinstance(job, PreparedJob):
            if round.pilots is not None and not self._may_go(round.pilots, job):
                return
            key = self._submitter.array_key(job) if round.batches.are_possible else None
            if key is None:
                self._hand_over_one(round, job)
            elif round.batches.add(job, key):
                round.space.go_together()
        elif job is None:
            if self._staging is not None:
                self._waiting.say_in(queue, attempt, self._staging.status_message(attempt))
        else:
            self._waiting.say_in(queue, attempt, job.message)
            if isinstance(job, LeftToOthers):
                self._waiting.shelve(attempt, job.look_again)

    def _may_go(self, pilots: PilotRound, job: PreparedJob) -> bool:
        """Whether a pilot takes it, or it may be a job of its own."""
        if self._pilots.takes(pilots, job):
            return True
        if self._is_postponed(job.queue):
            return False
        if not pilots.own_jobs:
            message = f"Waiting: the scheduler has {self._settings.max_jobs} jobs (hpc.max_jobs)"
            self._waiting.say_in(job.queue, job.directory.attempt, message)
            return False
        pilots.own_jobs -= 1
        return True

    def _hand_over_one(self, round: SubmissionRound, job: PreparedJob) -> None:
        hand_over = partial(self._submitter.hand_over, job)
        if round.at_once > 1:
            round.under_way[in_background(hand_over, "submission")] = job.directory.attempt
        else:
            self._conclude(round, job.directory.attempt, hand_over)

    def _hand_over(self, round: SubmissionRound, batch: Sequence[PreparedJob]) -> None:
        """Submit a batch; each of its tasks gets its own answer. One that is not taken goes in smaller ones."""
        if round.is_unanswered:
            return  # nothing of it is written yet
        first = batch[0].directory.attempt
        if len(batch) == 1:
            self._try(round, first, partial(self._hand_over_one, round, batch[0]))
            return
        answers: list[Answer] = []
        queue = batch[0].queue
        self._try(round, first, lambda: answers.extend(self._submitter.hand_over_together(batch)))
        size = sum(answer is not None for answer in answers)
        refusal = next((answer for answer in answers if isinstance(answer, (Refused, LimitReached))), None)
        if refusal is not None and size > 1:
            log.info("array.not_taken", queue=queue.name, size=size, answer=refusal.message)
            # Slurm's words about one job are those that concern its task.
            self._sizes.not_taken(queue.id, 1 if isinstance(refusal, Refused) else size)
            return
        self._sizes.taken(queue.id, size)
        for job, answer in zip(batch, answers, strict=False):
            attempt = job.directory.attempt
            self._try(round, attempt, partial(self._conclude, round, attempt, partial(_same, answer)))

    def _finish(self, round: SubmissionRound) -> None:
        """Wait for an answer."""
        done, _ = futures.wait(round.under_way, return_when=futures.FIRST_COMPLETED)
        for future in done:
            attempt = round.under_way.pop(future)
            self._try(round, attempt, partial(self._conclude, round, attempt, future.result))

    def _conclude(self, round: SubmissionRound, attempt: Attempt, answer_of: Callable[[], Answer]) -> None:
        """What the answer means for this task and the next ones."""
        queue, directory = round.cluster.queue_of[attempt], self._runs.of(attempt)
        try:
            answer = answer_of()
        except _TASK_ERRORS as error:
            self._waiting.fail(queue, attempt, str(error))
            return
        if answer is None:
            return
        self._last_served = queue.id
        if isinstance(answer, Accepted):
            if task_number(answer.job) is None:
                round.live_of[queue.id] += 1
                round.listed += 1
            self._sizes.taken(queue.id, 1)
            if queue.id not in round.limited:
                self._limits.pop(queue.id, None)
            self._actor.forget_message(attempt)
            round.width += 1
        elif isinstance(answer, Refused):
            self._waiting.fail(queue, attempt, f"the scheduler refused the job: {answer.message}")
        elif isinstance(answer, OutcomeUnknown):
            if answer.doubt is UnclearAnswer.NO_ANSWER:
                # A controller that freezes lets each sbatch wait for minutes.
                round.is_unclear = True
                self._limits.pop(queue.id, None)
                self._postpone(queue)
            self._actor.set_status_message(attempt, explain_doubt(answer.doubt, answer.message), directory)
        elif isinstance(answer, LimitReached):
            self._waiting.say_in(queue, attempt, f"Waiting to be submitted: {answer.message}")
            # Asking for the next of the queue at once would only load the controller. Others may have other limits.
            self._meet_limit(round, queue)


def _same(answer: Answer) -> Answer:
    return answer


def _live(cluster: ClusterSnapshot) -> list[Attempt]:
    """The attempts that have a job."""
    return [attempt for attempt, snapshot in cluster.snapshots.items() if snapshot.jobs]


def _queue_id(cluster: ClusterSnapshot, attempt: Attempt) -> str:
    record = cluster.files[attempt].submission
    return record.queue if record else ""
