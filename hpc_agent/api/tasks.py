"""``tasks.*``: reading a task, and the status changes that an agent makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hpc_agent.api.answer import id_in, rows
from hpc_agent.api.session import ApiSession
from hpc_agent.domain.ids import QueueId, TaskId, is_id
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Task, TaskContainer, TaskOwner
from hpc_agent.errors import ApiError, InputError, NotFoundError, ServerUnreachableError, UnknownTaskError
from hpc_agent.logs import EventLog
from hpc_agent.retry import Budget
from hpc_agent.wire import task_requests as requests
from hpc_agent.wire.error_kinds import INVALID_TASK_STATUS
from hpc_agent.wire.task_fields import CorruptTaskError, section, task_from_wire
from hpc_agent.wire.task_state import RUN_TOKEN, TaskState, state_from_wire

log = EventLog("tasks")

_LONGEST_NAME = 2000
"""Characters. A server may refuse patterns of more than 4000, and quoting doubles what is special in them."""
_RUNTIME_WRITES = 3
"""An SDK writes runtime properties a few times in a run: one that undoes ours three times in a row is a fault."""


class TasksApi:
    """Tasks of one server. Every method raises ``ApiError`` for a refusal, ``ServerUnreachableError`` without an
    answer; where a method names no budget the session's own holds."""

    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def get(self, task: TaskId, *, budget: Budget | None = None) -> Task:
        """
        Raises:
            NotFoundError: there is no such task.
            CorruptTaskError: the server's object does not have ClearML's types.
        """
        return task_from_wire(self._session.call("tasks.get_by_id", {"task": task}, budget=budget).get("task"))

    def get_many(self, tasks: Sequence[TaskId], *, budget: Budget | None = None) -> dict[TaskId, Task]:
        """These tasks in few calls, without those that the server does not list or whose objects are invalid: ``get``
        says what is wrong with them."""
        found: dict[TaskId, Task] = {}
        for start in range(0, len(tasks), requests.PAGE_SIZE):
            query = requests.tasks_query(tasks[start : start + requests.PAGE_SIZE])
            for data in rows(self._session.call("tasks.get_all", query, budget=budget), "tasks"):
                with suppress(CorruptTaskError):
                    task = task_from_wire(data)
                    found[task.id] = task
        return found

    def get_object(self, task: TaskId, *, budget: Budget | None = None) -> dict[str, Any]:
        """The server's own task object, for callers that send a section back changed."""
        return section(self._session.call("tasks.get_by_id", {"task": task}, budget=budget), "task")

    def resolve(self, id_or_name: str) -> TaskId:
        """The task of that id, or of exactly that name (docs/internals/clearml-protocol.md#task-ids-and-names).

        Raises:
            UnknownTaskError: no task has that name.
            InputError: several have it.
        """
        if len(id_or_name) > _LONGEST_NAME:
            raise UnknownTaskError(f"no task has a name of {len(id_or_name)} characters")
        if len(id_or_name) >= 30 and set(id_or_name.lower()) <= set("0123456789abcdef-"):
            return TaskId(id_or_name.replace("-", ""))
        found = rows(self._session.call("tasks.get_all", requests.named_query(id_or_name)), "tasks")
        exact = [task for task in found if str(task.get("name", "")).lower() == id_or_name.lower()]
        if len(exact) == 1:
            return TaskId(id_in(exact[0]))
        if exact:
            ids = ", ".join(id_in(task) for task in exact[:10])
            raise InputError(f'{len(exact)} tasks are named "{id_or_name}"; give the id of one: {ids}')
        near = ", ".join(str(task.get("name")) for task in found[:10])
        raise UnknownTaskError(
            f'no task has the id or name "{id_or_name}"' + (f"; similar names: {near}" if near else "")
        )

    def get_states(self, tasks: Sequence[TaskId], *, budget: Budget | None = None) -> dict[TaskId, TaskState]:
        """Status, message and runtime of these tasks in few calls; a task that does not exist is left out.

        A list that lacks a task does not prove that: the task is asked for by its id, and left out only if the server
        then says that it does not exist. After any other answer its status is ``UNKNOWN``.
        """
        found: dict[TaskId, TaskState] = {}
        for start in range(0, len(tasks), requests.PAGE_SIZE):
            query = requests.states_query(tasks[start : start + requests.PAGE_SIZE])
            listed = rows(self._session.call("tasks.get_all", query, budget=budget), "tasks")
            found |= {TaskId(task["id"]): state_from_wire(task) for task in listed if is_id(task.get("id"))}
        for task in tasks:
            if task not in found and (state := self._get_state(task, budget)):
                found[task] = state
        return found

    def get_owners(self, tasks: Sequence[TaskId], *, budget: Budget | None = None) -> dict[TaskId, TaskOwner]:
        """Users and projects of these tasks. What the server lacks is left out."""
        found: dict[TaskId, TaskOwner] = {}
        for start in range(0, len(tasks), requests.PAGE_SIZE):
            query = requests.owners_query(tasks[start : start + requests.PAGE_SIZE])
            listed = rows(self._session.call("tasks.get_all", query, budget=budget), "tasks")
            found |= {TaskId(task["id"]): _owner_of(task) for task in listed if is_id(task.get("id"))}
        return found

    def _get_state(self, task: TaskId, budget: Budget | None) -> TaskState | None:
        try:
            return state_from_wire(self.get_object(task, budget=budget))
        except NotFoundError:
            return None
        except (ApiError, ServerUnreachableError):
            return state_from_wire({})

    def started(
        self, task: TaskId, reason: str, message: str, *, force: bool = False, budget: Budget | None = None
    ) -> None:
        """``force`` starts a failed task too (which needs a reset otherwise)."""
        payload = requests.status_change(task, reason, message, force=force)
        self._session.call("tasks.started", payload, budget=budget)

    def set_final_status(
        self, task: TaskId, status: TaskStatus, reason: str, by: str, *, budget: Budget, force: bool = False
    ) -> bool:
        """Set it completed, failed or stopped; False if its present status does not allow that.

        ``by``: which program does it. ``force`` fails a task that never started (the server allows queued → failed only
        so).
        """
        payload = requests.status_change(task, reason, f"Changed by hpc-agent {by}", force=force)
        try:
            self._session.call(f"tasks.{status.value}", payload, budget=budget)
        except ApiError as error:
            if not INVALID_TASK_STATUS.matches(error):
                raise
            log.info("task.status_refused", task=task, status=status.value, error=error)
            return False
        return True

    def ping(self, task: TaskId, *, budget: Budget) -> None:
        """Keep the server's watchdog from stopping the task."""
        self._session.call("tasks.ping", {"task": task}, budget=budget)

    def set_status_message(self, task: TaskId, message: str, *, budget: Budget) -> None:
        """Works on a queued task too."""
        self._session.call("tasks.update", requests.status_message(task, message), budget=budget)

    def set_run_token(self, task: TaskId, token: str, values: Mapping[str, Any], *, budget: Budget) -> None:
        """Name the run that owns the task from now on (``<attempt>.<start>``), with other runtime values."""
        self.add_runtime(task, {**values, RUN_TOKEN: token}, budget=budget)

    def set_first_run_token(self, task: Task, token: str, values: Mapping[str, Any], *, budget: Budget) -> None:
        """As ``set_run_token``, of a task that nothing has run since ``task`` was read: no SDK writes to it."""
        runtime = requests.runtime_over({"runtime": dict(task.runtime)}, {**values, RUN_TOKEN: token})
        self.edit(task.id, runtime, budget=budget)

    def add_runtime(self, task: TaskId, values: Mapping[str, Any], *, budget: Budget | None = None) -> None:
        """Set keys of the task's runtime section and keep the others.

        The API has no call for a single key: the section is read, merged and replaced, here as in the SDK
        (docs/internals/clearml-protocol.md#edits). Two writers at once can therefore drop each other's keys. This one
        writes only what differs, at once after it was read, and looks afterwards: where a key shows its old value
        again, an SDK has put an older section over ours, and the write is repeated. A key with a third value belongs
        to another run, which came later: it stays.
        """
        before = self.get_object(task, budget=budget)
        wanted = {key: value for key, value in values.items() if section(before, "runtime").get(key) != value}
        for _ in range(_RUNTIME_WRITES):
            if not wanted:
                return
            self.edit(task, requests.runtime_over(before, wanted), budget=budget)
            after = self.get_object(task, budget=budget)
            old, new = section(before, "runtime"), section(after, "runtime")
            wanted = {key: value for key, value in wanted.items() if new.get(key) == old.get(key)}
            before = after
        log.warning("runtime.overwritten", task=task, keys=",".join(wanted))

    def names(self, project: str, pattern: str) -> list[str]:
        """The names of a project's tasks that match a regular expression."""
        found = rows(self._session.call("tasks.get_all", requests.names_query(project, pattern)), "tasks")
        return [str(task.get("name") or "") for task in found]

    def set_arguments(self, task: TaskId, values: Mapping[str, str]) -> None:
        """Add or replace arguments of the script's argument parser (hyper-parameter section ``Args``)."""
        self._set_hyperparams(task, "Args", values)

    def set_properties(self, task: TaskId, values: Mapping[str, str], *, budget: Budget | None = None) -> None:
        """Add or replace user properties."""
        self._set_hyperparams(task, "properties", values, budget)

    def _set_hyperparams(
        self, task: TaskId, group: str, values: Mapping[str, str], budget: Budget | None = None
    ) -> None:
        if values:
            request = requests.hyperparams_request(task, group, values)
            self._session.call("tasks.edit_hyper_params", request, budget=budget)

    def set_requirements(self, task: TaskId, requirements: Mapping[str, str]) -> None:
        self._session.call("tasks.set_requirements", {"task": task, "requirements": dict(requirements)})

    def set_commit(self, task: TaskId, commit: str) -> None:
        """Store the commit that a branch was resolved to."""
        self.edit(task, requests.commit_over(self.get_object(task), commit))

    def set_container(self, task: TaskId, container: TaskContainer) -> None:
        self.edit(task, {"container": requests.container_to_wire(container)})

    def create(self, fields: Mapping[str, Any]) -> TaskId:
        """A new task from a body of ``wire.task_requests``."""
        return TaskId(id_in(self._session.call("tasks.create", fields, repeatable=False)))

    def edit(self, task: TaskId, fields: Mapping[str, Any], *, budget: Budget | None = None) -> None:
        """Change fields of ``wire.task_requests``."""
        self._session.call("tasks.edit", requests.edit_request(task, fields), budget=budget)

    def clone(self, task: TaskId, name: str = "", parent: TaskId | None = None) -> TaskId:
        """A copy that differs in its name and parent only."""
        return self.create_copy(requests.clone_request(task, name, parent))

    def create_copy(self, fields: Mapping[str, Any]) -> TaskId:
        """A copy from a body of ``wire.task_requests``."""
        return TaskId(id_in(self._session.call("tasks.clone", fields, repeatable=False)))

    def delete(self, task: TaskId) -> None:
        self._session.call("tasks.delete", {"task": task, "force": True})

    def enqueue(self, task: TaskId, queue: QueueId, reason: str = "") -> None:
        self._session.call("tasks.enqueue", requests.enqueue_request(task, queue, reason))

    def dequeue(self, task: TaskId) -> None:
        self._session.call("tasks.dequeue", {"task": task})


def _owner_of(task: Mapping[str, Any]) -> TaskOwner:
    return TaskOwner(_id_of(task.get("user")), _id_of(task.get("project")))


def _id_of(value: object) -> str:
    """Of a reference that may have been replaced by its object."""
    return str((value.get("id") if isinstance(value, Mapping) else value) or "")
