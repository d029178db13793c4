"""Taking a task: exactly one of all that try may run it (design.md 2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task
from hpc_agent.errors import InputError, ServerUnreachableError
from hpc_agent.executor.identity import Identity
from hpc_agent.logs import Events
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.runs.records import Claim

log = Events("claim")

UNCERTAIN_WAIT_S = 30.0
"""A winner sets the task started within a second; one that has not after this long is dead or never was."""


class Won(Enum):
    FRESH = "fresh"
    RESUMED = "resumed"
    """The same job, started again by Slurm."""


@dataclass(frozen=True)
class Lost:
    """Not ours to run; the job leaves quietly."""

    why: str


class Claimer:
    def __init__(self, client: Client, run: RunDirectory, me: Identity, clock: Clock) -> None:
        self._client = client
        self._run = run
        self._me = me
        self._clock = clock

    def claim(self, task: Task, *, require_queue: bool) -> Won | Lost:
        """Take ``task``.

        Raises:
            InputError: it cannot be run as asked (running already, published) and no queue is involved.
            ServerUnreachableError: nothing is decided; the claim's intent stands and the daemon or the next
                start of this job goes on from it.
        """
        before = self._run.claim()
        if before is not None and before.owner == self._me.owner and before.state == "won":
            if self._me.restarts or self._run.exit_report() is None:
                return self._resume(task)
            # The same job or terminal runs it anew: what it did before is over.
            self._run.drop_claim()
            self._run.drop_exit_report()
            before = None
        if task.status is TaskStatus.QUEUED:
            return self._from_queue(task, before)
        if require_queue:
            return Lost(f"the task is {task.status.value}, not queued")
        return self._unqueued(task)

    def _resume(self, task: Task) -> Won | Lost:
        report = self._run.exit_report()
        if report is not None and not report.interrupted:
            return Lost(f"this job already ran it to its end: {report.reason}")
        alive = task.status in (TaskStatus.IN_PROGRESS, TaskStatus.QUEUED)
        ours = task.status is TaskStatus.STOPPED and report is not None and task.status_reason == report.reason
        if not (alive or ours):
            return Lost(f"the task is {task.status.value}")
        self._run.drop_exit_report()
        return Won.RESUMED

    def _from_queue(self, task: Task, before: Claim | None) -> Won | Lost:
        intent = self._record("intent", task)
        if before is not None and before.owner != self._me.owner:
            return Lost(f"{before.owner} on {before.host or 'another host'} has claimed it")
        if before is None and not self._run.create().first_claim(intent):
            return Lost("another job has claimed it")
        if not self._remove(task):
            self._run.drop_claim()
            return Lost("another agent took it off its queue")
        self._run.write_claim(self._record("won", task))
        return Won.FRESH

    def _record(self, state: str, task: Task) -> Claim:
        return Claim(
            state="won" if state == "won" else "intent",
            at=self._clock.now(),
            owner=self._me.owner,
            queue=task.queue or "",
            host=self._me.host,
            worker=self._me.worker,
        )

    def _remove(self, task: Task) -> bool:
        """The compare-and-set, on the queue the task names, else on the one that holds it."""
        queues = self._client.queues
        try:
            if task.queue and queues.remove_task(task.queue, task.id):
                return True
            holder = queues.holding(task.id)
            return holder is not None and queues.remove_task(holder.id, task.id)
        except ServerUnreachableError as error:
            if not error.uncertain:
                raise
            log.warning("no answer to the claim, looking again", task=task.id, error=error)
        return self._remove_after_doubt(task)

    def _remove_after_doubt(self, task: Task) -> bool:
        """The answer was lost. Whoever won shows as ``in_progress`` soon; nobody does: back to the queue, and again."""
        deadline = self._clock.monotonic() + UNCERTAIN_WAIT_S
        queues = self._client.queues
        while self._clock.monotonic() < deadline:
            holder = queues.holding(task.id)
            if holder is not None:
                return queues.remove_task(holder.id, task.id)
            seen = self._client.tasks.glimpse([task.id]).get(task.id)
            if seen is None or seen.status is not TaskStatus.QUEUED:
                return False
            self._clock.sleep(1.0)
        if task.queue is None:
            return False
        queues.put_first(task.queue, task.id, "the answer to a claim was lost")
        return queues.remove_task(task.queue, task.id)

    def _unqueued(self, task: Task) -> Won | Lost:
        if task.status is TaskStatus.IN_PROGRESS:
            raise InputError(f"task {task.id} is running already; abort or reset it first")
        if task.status in (TaskStatus.PUBLISHED, TaskStatus.PUBLISHING):
            raise InputError(f"task {task.id} is published and cannot run again; clone it")
        if not self._run.create().first_claim(self._record("won", task)):
            return Lost("another process has claimed it")
        return Won.FRESH
