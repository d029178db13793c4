"""``queues.*``: reading queues, and removing a task, which is its claim."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpc_agent.api.answer import id_in, rows, whole
from hpc_agent.api.session import ApiSession
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.queue import Queue
from hpc_agent.errors import ApiError, InputError, NotFoundError, UnknownQueueError
from hpc_agent.wire.error_kinds import INVALID_QUEUE_ID, NAME_TAKEN, TASK_ALREADY_QUEUED, TASK_NOT_IN_QUEUE
from hpc_agent.wire.queue_fields import queue_from_wire
from hpc_agent.wire.task_requests import enqueue_request


class QueuesApi:
    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def resolve(self, id_or_name: str, *, create: bool = False) -> QueueId:
        """The queue of that id or name (in any case); ``create`` makes it if it does not exist.

        Raises:
            UnknownQueueError, InputError: no queue has that name, or several have it.
        """
        if named := self._named(id_or_name):
            return named
        try:
            return QueueId(id_in(self._session.call("queues.get_by_id", {"queue": id_or_name}).get("queue")))
        except ApiError as error:
            if error.code != 400:
                raise
        if create:
            return self._create(id_or_name)
        raise UnknownQueueError(self._unknown(id_or_name))

    def _named(self, name: str) -> QueueId | None:
        query = {"name": f"^{re.escape(name)}$", "only_fields": ["id", "name"], "search_hidden": True}
        found = rows(self._session.call("queues.get_all", query), "queues")
        exact = [queue for queue in found if str(queue.get("name")).lower() == name.lower()]
        exact = [queue for queue in exact if queue.get("name") == name] or exact
        if len(exact) > 1:
            raise InputError(f'{len(exact)} queues are named "{name}"; give the id of one')
        return QueueId(id_in(exact[0])) if exact else None

    def _create(self, name: str) -> QueueId:
        """A new queue, or the one that another client, or our own first try whose answer was lost, has just made."""
        try:
            return QueueId(id_in(self._session.call("queues.create", {"name": name})))
        except ApiError as error:
            if not NAME_TAKEN.matches(error) or not (named := self._named(name)):
                raise
            return named

    def _unknown(self, name: str) -> str:
        names = sorted(str(queue.get("name")) for queue in rows(self._session.call("queues.get_all", {}), "queues"))
        import difflib  # only after a wrong name

        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        advice = f"the server has: {', '.join(names)}" if names else "the server has none"
        if near:
            advice = f"did you mean {' or '.join(near)}?"
        return f'there is no queue "{name}"; {advice}'

    def default(self) -> QueueId:
        """The server's default queue, else the one named ``default``."""
        try:
            return QueueId(id_in(self._session.call("queues.get_default", {})))
        except ApiError as error:
            if error.code not in (400, 404):
                raise
        return self.resolve("default")

    def get_many(self, queues: Sequence[QueueId]) -> list[Queue]:
        """These queues with their entries, in this order, in one call. Deleted ones are left out."""
        answer = self._session.call("queues.get_all", {"id": list(queues), "search_hidden": True})
        by_id = {queue.id: queue for data in rows(answer, "queues") if (queue := queue_from_wire(data))}
        return [by_id[queue] for queue in queues if queue in by_id]

    def is_deleted(self, queue: QueueId) -> bool:
        """Whether the server confirms that the queue does not exist; its absence from a list does not prove that."""
        try:
            self._session.call("queues.get_by_id", {"queue": queue, "max_task_entries": 1})
        except ApiError as error:
            return INVALID_QUEUE_ID.matches(error)
        return False

    def queue_of(self, task: TaskId) -> Queue | None:
        """The queue that has an entry of the task, whatever the task's own fields are."""
        for data in rows(self._session.call("queues.get_all", {"search_hidden": True}), "queues"):
            queue = queue_from_wire(data)
            if queue is not None and any(entry.task == task for entry in queue.entries):
                return queue
        return None

    def remove_task(self, queue: QueueId, task: TaskId) -> bool:
        """Remove the task from the queue: True for exactly one of all callers.

        Measured: docs/internals/clearml-protocol.md#claim.

        Raises:
            ServerUnreachableError: no answer; ``uncertain`` if the removal may have happened.
        """
        try:
            answer = self._session.call("queues.remove_task", {"queue": queue, "task": task}, repeatable=False)
        except ApiError as error:
            if _is_not_queued(error):
                return False
            raise
        return whole(answer.get("removed")) == 1

    def enqueue_at_head(self, queue: QueueId, task: TaskId, reason: str) -> None:
        """Put a task that is in no queue back at the head of ``queue``."""
        try:
            self._session.call("tasks.enqueue", enqueue_request(task, queue, reason, force=True))
        except ApiError as error:
            if not TASK_ALREADY_QUEUED.matches(error):
                raise
        self.move_to_front(queue, task)

    def move_to_front(self, queue: QueueId, task: TaskId) -> None:
        """To the head of this queue, if it is in it."""
        try:
            self._session.call("queues.move_task_to_front", {"queue": queue, "task": task})
        except NotFoundError:
            pass
        except ApiError as error:
            if not _is_not_queued(error):
                raise


def _is_not_queued(error: ApiError) -> bool:
    return TASK_NOT_IN_QUEUE.matches(error) or INVALID_QUEUE_ID.matches(error)
