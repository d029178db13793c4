"""Owners of waiting tasks, and the part of the queues that a daemon serves where ``hpc.user_map`` divides them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.queue import Queue, QueueEntry
from hpc_agent.domain.task import TaskOwner
from hpc_agent.domain.user_map import UserMap, UserShare
from hpc_agent.errors import ApiError, UserMapError
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE

log = EventLog("owners")


class EntryFilter(Protocol):
    """What a daemon sees of its queues."""

    def __call__(self, queue: Queue) -> Queue:
        """The queue with those entries that are this daemon's to serve.

        Raises:
            ServerUnreachableError: the owners of its tasks are not known now.
        """


class TaskOwners:
    """Users and projects of tasks, each asked for once: a task keeps its user, and seldom changes its project."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[TaskId, TaskOwner] = {}

    def of(self, tasks: Sequence[TaskId]) -> dict[TaskId, str]:
        """Task → user, empty for a task without one. Tasks that the server does not list are left out.

        Raises:
            ServerUnreachableError: no usable answer.
        """
        return {task: owner.user for task, owner in self.owners(tasks).items()}

    def owners(self, tasks: Sequence[TaskId]) -> dict[TaskId, TaskOwner]:
        """As ``of``, with the projects."""
        unknown = [task for task in tasks if task not in self._known]
        if unknown:
            self._known |= self._client.tasks.get_owners(unknown, budget=ONCE)
        return {task: self._known[task] for task in tasks if task in self._known}


class ShareEntries:
    """Entries of one share: what the daemon of a mapped Linux user sees."""

    def __init__(self, client: Client, users: UserMap, share: UserShare) -> None:
        self._owners = TaskOwners(client)
        self._users = users
        self._share = share

    def __call__(self, queue: Queue) -> Queue:
        owners = self._owners.of([entry.task for entry in queue.entries])
        ours = tuple(e for e in queue.entries if e.task in owners and self._share.has(self._users, owners[e.task]))
        return replace(queue, entries=ours)


class OtherDaemons(Protocol):
    """Daemons of other Linux users."""

    def require(self, share: UserShare) -> str:
        """Have one run for this share; empty, or why none does."""


class MainEntries:
    """Entries that the main daemon keeps: its own user's, and those that are to be rejected. The others' daemons are
    started as their tasks appear; where one cannot run, its tasks show why."""

    def __init__(
        self, client: Client, users: UserMap, others: OtherDaemons, own_user: str, *, by_clearml_user: bool
    ) -> None:
        """``by_clearml_user``: each ClearML user's tasks are a share of their own."""
        self._client = client
        self._owners = TaskOwners(client)
        self._users = users
        self._others = others
        self._own_user = own_user
        self._by_clearml_user = by_clearml_user
        self._shown: dict[TaskId, str] = {}

    def __call__(self, queue: Queue) -> Queue:
        owners = self._owners.of([entry.task for entry in queue.entries])
        return replace(
            queue, entries=tuple(entry for entry in queue.entries if self._keeps(entry, owners.get(entry.task)))
        )

    def _keeps(self, entry: QueueEntry, user: str | None) -> bool:
        if user is None:
            return True
        try:
            linux_user = self._users.linux_user(user)
        except UserMapError:
            return True
        if linux_user == self._own_user:
            return True
        trouble = self._others.require(UserShare(linux_user, user if self._by_clearml_user else None))
        self._show(entry.task, trouble)
        return False

    def _show(self, task: TaskId, trouble: str) -> None:
        if trouble and self._shown.get(task) != trouble:
            try:
                self._client.tasks.set_status_message(task, f"Waiting: {trouble}", budget=ONCE)
            except ApiError as error:
                log.warning("task.message_refused", task=task, error=error)
        self._shown[task] = trouble
