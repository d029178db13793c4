"""``tasks.*``: reading a task, and the few transitions that an agent makes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_agent.api.answer import id_in, rows
from hpc_agent.api.session import ApiSession
from hpc_agent.domain.ids import QueueId, TaskId, is_id
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task, TaskContainer
from hpc_agent.errors import ApiError, InputError, NotFoundError, ServerUnreachableError
from hpc_agent.logs import EventLog
from hpc_agent.retry import Budget
from hpc_agent.wire.draft_fields import container_to_wire
from hpc_agent.wire.error_kinds import INVALID_TASK_STATUS
from hpc_agent.wire.task_fields import (
    ABORT_DONE,
    ABORT_POLL,
    ABORT_TIMEOUT,
    RUN_STAMP,
    status_from_wire,
    task_from_wire,
)

log = EventLog("tasks")

_PAGE = 500
"""What the reference server gives at most in one answer."""
_RUNTIME_WRITES = 3
"""An SDK writes runtime properties a few times in a run: one that undoes ours three times in a row is a fault."""
_FIELDS = (
    "id",
    "status",
    "status_message",
    "status_reason",
    "status_changed",
    "runtime",
    "last_worker",
    "last_worker_report",
)


@dataclass(frozen=True)
class TaskState:
    """The part of a task that changes while it runs."""

    status: TaskStatus
    message: str
    reason: str
    runtime: Mapping[str, Any]
    last_worker: str = ""
    """The agent that has reported to be at work on it since its status changed last; empty if none has."""

    @property
    def abort_requested(self) -> bool:
        """``tasks.stop`` on a live task says so in its status message (docs/internals/clearml-protocol.md#abort)."""
        return self.status is TaskStatus.IN_PROGRESS and "stopping" in self.message.lower()

    @property
    def stamp(self) -> str:
        """Which run of ours has the task, as its executor wrote it; empty where none did."""
        return str(self.runtime.get(RUN_STAMP) or "")

    @property
    def abort_callback_seconds(self) -> float:
        """What the task asks for between an abort and its end; 0 without an abort callback.

        See docs/internals/clearml-protocol.md#abort-callback.
        """
        if self.abort_callback_done:
            return 0.0
        timeout = _number(self.runtime.get(ABORT_TIMEOUT))
        return timeout + _number(self.runtime.get(ABORT_POLL)) if timeout > 0 else 0.0

    @property
    def abort_callback_done(self) -> bool:
        return bool(_number(self.runtime.get(ABORT_DONE)))


def _number(value: object) -> float:
    """What a runtime property is worth: the SDK writes numbers, their texts and booleans."""
    if isinstance(value, bool):
        return float(value)
    try:
        number = float(str(value))
    except ValueError:
        return float(str(value).lower() == "true")
    return 0.0 if math.isnan(number) else number


def _glimpse(task: Mapping[str, Any]) -> TaskState:
    # Both times are the server's. An older report is of a run before this one.
    reported, changed = str(task.get("last_worker_report") or ""), str(task.get("status_changed") or "")
    return TaskState(
        status_from_wire(task.get("status")),
        str(task.get("status_message") or ""),
        str(task.get("status_reason") or ""),
        _section(task, "runtime"),
        str(task.get("last_worker") or "") if reported >= changed else "",
    )


def _section(task: object, name: str) -> dict[str, Any]:
    """A section of the server's object; empty where it is not there, or no section."""
    found = task.get(name) if isinstance(task, Mapping) else None
    return found if isinstance(found, dict) else {}


class TasksApi:
    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def get(self, task: TaskId, *, budget: Budget | None = None) -> Task:
        """
        Raises:
            NotFoundError: there is no such task.
            CorruptTaskError: it cannot be understood.
        """
        return task_from_wire(self._session.call("tasks.get_by_id", {"task": task}, budget=budget).get("task"))

    def resolve(self, id_or_name: str) -> TaskId:
        """The task of that id, or of exactly that name (docs/internals/clearml-protocol.md#task-ids-and-names).

        Raises:
            InputError: no task, or several, have that name.
        """
        if len(id_or_name) >= 30 and set(id_or_name.lower()) <= set("0123456789abcdef-"):
            return TaskId(id_or_name.replace("-", ""))
        query = {"name": re.escape(id_or_name), "only_fields": ["id", "name"], "page": 0, "page_size": 50}
        found = rows(self._session.call("tasks.get_all", query), "tasks")
        exact = [task for task in found if str(task.get("name", "")).lower() == id_or_name.lower()]
        if len(exact) == 1:
            return TaskId(id_in(exact[0]))
        if exact:
            ids = ", ".join(id_in(task) for task in exact[:10])
            raise InputError(f'{len(exact)} tasks are named "{id_or_name}"; give the id of one: {ids}')
        near = ", ".join(str(task.get("name")) for task in found[:10])
        raise InputError(f'no task has the id or name "{id_or_name}"' + (f"; similar names: {near}" if near else ""))

    def get_states(self, tasks: Sequence[TaskId], *, budget: Budget | None = None) -> dict[TaskId, TaskState]:
        """Status, message and runtime of these tasks in few calls; one that does not exist is left out.

        A list that lacks a task is no proof of that: it is asked for by its id, and left out only where the server then
        says that there is none. Where it says anything else, the status is ``UNKNOWN``.
        """
        found: dict[TaskId, TaskState] = {}
        for start in range(0, len(tasks), _PAGE):
            ids = list(tasks[start : start + _PAGE])
            query = {"id": ids, "only_fields": list(_FIELDS), "search_hidden": True, "page": 0, "page_size": _PAGE}
            listed = rows(self._session.call("tasks.get_all", query, budget=budget), "tasks")
            found |= {TaskId(task["id"]): _glimpse(task) for task in listed if is_id(task.get("id"))}
        for task in tasks:
            if task not in found and (seen := self._asked_for(task, budget)):
                found[task] = seen
        return found

    def _asked_for(self, task: TaskId, budget: Budget | None) -> TaskState | None:
        try:
            answer = self._session.call("tasks.get_by_id", {"task": task}, budget=budget)
            return _glimpse(_section(answer, "task"))
        except NotFoundError:
            return None
        except (ApiError, ServerUnreachableError):
            return _glimpse({})

    def started(
        self, task: TaskId, reason: str, message: str, *, force: bool = False, budget: Budget | None = None
    ) -> None:
        """``force`` starts a failed task too (which needs a reset otherwise)."""
        payload = {"task": task, "status_reason": reason, "status_message": message, "force": force}
        self._session.call("tasks.started", payload, budget=budget)

    def conclude(
        self, task: TaskId, status: TaskStatus, reason: str, by: str, *, budget: Budget, force: bool = False
    ) -> bool:
        """Give it its final status (completed, failed or stopped); False if it has one that this may not follow.

        ``by`` says who did it. ``force`` fails a task that never started (queued → failed is none of the usual steps).
        """
        message = f"Changed by hpc-agent {by}"
        payload = {"task": task, "status_reason": reason, "status_message": message, "force": force}
        try:
            self._session.call(f"tasks.{status.value}", payload, budget=budget)
        except ApiError as error:
            if error.subcode != INVALID_TASK_STATUS.subcode:
                raise
            log.info("the task has another status already", task=task, error=error)
            return False
        return True

    def ping(self, task: TaskId, *, budget: Budget) -> None:
        """Tell the server's watchdog that somebody still works on it."""
        self._session.call("tasks.ping", {"task": task}, budget=budget)

    def say(self, task: TaskId, message: str, *, budget: Budget) -> None:
        """Set the status message, which works on a queued task too (``tasks.edit`` would change nothing)."""
        self._session.call("tasks.update", {"task": task, "status_message": message}, budget=budget)

    def stamp(self, task: TaskId, run: str, values: Mapping[str, Any], *, budget: Budget) -> None:
        """Say whose run it is that the task shows from now on: ``<attempt>.<start>``."""
        self.add_runtime(task, {**values, RUN_STAMP: run}, budget=budget)

    def add_runtime(self, task: TaskId, values: Mapping[str, Any], *, budget: Budget | None = None) -> None:
        """Set keys of the task's runtime section and keep the others.

        The API has no call for a single key: the section is read, merged and replaced, here as in the SDK
        (docs/internals/clearml-protocol.md#edits). Two writers at once can therefore drop each other's keys. This one
        writes only what differs, at once after it was read, and looks afterwards: where a key shows its old value
        again, an SDK has put an older section over ours, and the write is repeated. A key with a third value belongs
        to another run, which came later: it stays.
        """
        before = self._runtime(task, budget)
        wanted = {key: value for key, value in values.items() if before.get(key) != value}
        for _ in range(_RUNTIME_WRITES):
            if not wanted:
                return
            self._session.call(
                "tasks.edit", {"task": task, "runtime": {**before, **wanted}, "force": True}, budget=budget
            )
            after = self._runtime(task, budget)
            wanted = {key: value for key, value in wanted.items() if after.get(key) == before.get(key)}
            before = after
        log.warning("runtime.overwritten", task=task, keys=",".join(wanted))

    def _runtime(self, task: TaskId, budget: Budget | None) -> dict[str, Any]:
        answer = self._session.call("tasks.get_by_id", {"task": task}, budget=budget)
        return _section(_section(answer, "task"), "runtime")

    def names(self, project: str, pattern: str) -> list[str]:
        """The names of a project's tasks that match a regular expression."""
        query = {
            "project": [project],
            "name": pattern,
            "only_fields": ["id", "name"],
            "search_hidden": True,
            "page": 0,
            "page_size": 500,
        }
        return [str(task.get("name") or "") for task in rows(self._session.call("tasks.get_all", query), "tasks")]

    def set_arguments(self, task: TaskId, values: Mapping[str, str]) -> None:
        """Add or replace what the script's argument parser gets (hyper-parameter section ``Args``)."""
        self._set_hyperparams(task, "Args", values)

    def set_properties(self, task: TaskId, values: Mapping[str, str], *, budget: Budget | None = None) -> None:
        """Add or replace user properties (what the web page shows under "user properties")."""
        self._set_hyperparams(task, "properties", values, budget)

    def _set_hyperparams(
        self, task: TaskId, section: str, values: Mapping[str, str], budget: Budget | None = None
    ) -> None:
        if not values:
            return
        params = [{"section": section, "name": name, "value": value, "type": "str"} for name, value in values.items()]
        payload = {"task": task, "hyperparams": params, "replace_hyperparams": "none"}
        self._session.call("tasks.edit_hyper_params", payload, budget=budget)

    def set_requirements(self, task: TaskId, requirements: Mapping[str, str]) -> None:
        self._session.call("tasks.set_requirements", {"task": task, "requirements": dict(requirements)})

    def set_commit(self, task: TaskId, commit: str) -> None:
        """Store the commit that a branch meant. The whole script section is sent: the server replaces it as a whole."""
        self.edit(task, {"script": {**_section(self.raw(task), "script"), "version_num": commit}})

    def set_container(self, task: TaskId, container: TaskContainer) -> None:
        self.edit(task, {"container": container_to_wire(container)})

    def raw(self, task: TaskId) -> dict[str, Any]:
        """The server's own object, for callers that send a section back changed."""
        return _section(self._session.call("tasks.get_by_id", {"task": task}), "task")

    def create(self, fields: Mapping[str, Any]) -> TaskId:
        return TaskId(id_in(self._session.call("tasks.create", fields, repeatable=False)))

    def edit(self, task: TaskId, fields: Mapping[str, Any]) -> None:
        self._session.call("tasks.edit", {"task": task, "force": True, **fields})

    def clone(self, task: TaskId, name: str | None = None, **fields: Any) -> TaskId:
        payload = {"task": task, **({"new_task_name": name} if name else {}), **fields}
        return TaskId(id_in(self._session.call("tasks.clone", payload, repeatable=False)))

    def delete(self, task: TaskId) -> None:
        self._session.call("tasks.delete", {"task": task, "force": True})

    def enqueue(self, task: TaskId, queue: QueueId, reason: str = "") -> None:
        self._session.call("tasks.enqueue", {"task": task, "queue": queue, "status_reason": reason})

    def dequeue(self, task: TaskId) -> None:
        self._session.call("tasks.dequeue", {"task": task})
