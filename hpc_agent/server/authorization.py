"""Authorization of a call: the row of ``roles`` for the endpoint, applied to what the request names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Call, Endpoint
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.authentication import AuthenticatedCaller
from hpc_agent.server.event_batch import EventBatch
from hpc_agent.server.roles import PERMISSIONS, OwnerKind, Permission, Scope, Target
from hpc_agent.server.store import key_store
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Collection, Document, models, projects, queues, tasks, workers
from hpc_agent.server.store.query import Query
from hpc_agent.wire.error_kinds import NO_PERMISSION

_NO_ACCESS = Permission(Scope.NONE, Scope.NONE)
_SILENT = timedelta(seconds=90)
"""Agents report every 30 seconds."""
_COLLECTIONS: Mapping[OwnerKind, Collection] = {
    OwnerKind.TASK: tasks,
    OwnerKind.MODEL: models,
    OwnerKind.PROJECT: projects,
    OwnerKind.QUEUE: queues,
    OwnerKind.WORKER: workers,
}


def check(call: Call, endpoint: Endpoint, request: object) -> None:
    """
    Raises:
        ApiFault: 403/20, the caller's role may not do this, or not to these objects.
    """
    who = call.identity
    if who.task_ended and endpoint.access is Access.WRITE:
        raise ApiFault(NO_PERMISSION, "the task that these credentials were made for has ended", task=who.task)
    permission = PERMISSIONS.get(endpoint.name, _NO_ACCESS)
    if who.delegated and not permission.delegated:
        raise ApiFault(
            NO_PERMISSION, f"{endpoint.name} needs the user's own key, not one that an administrator has for the user"
        )
    if who.is_admin:
        return
    scope = scope_of(who, permission)
    if scope is Scope.NONE:
        raise ApiFault(NO_PERMISSION, f"{endpoint.name} is not for {_described(who)}", role=role_of(who))
    if scope is Scope.OWN:
        _check_own(call, endpoint.name, permission, request)


def may(call: Call, name: str) -> bool:
    """Whether the caller may call this endpoint at all."""
    who = call.identity
    return who.is_admin or scope_of(who, PERMISSIONS.get(name, _NO_ACCESS)) is not Scope.NONE


def scope_of(who: AuthenticatedCaller, permission: Permission) -> Scope:
    if who.is_admin:
        return Scope.ALL
    return permission.task if who.task else permission.user


def role_of(who: AuthenticatedCaller) -> str:
    return "task" if who.task else who.role


def owns(call: Call, kind: OwnerKind, id: str) -> bool:
    """Whether the object is the caller's own, is not there, or the caller is an administrator."""
    return call.identity.is_admin or not _foreign(call, kind, [id])


def _described(who: AuthenticatedCaller) -> str:
    return "the credentials of a task" if who.task else "users who are not administrators"


def _check_own(call: Call, name: str, permission: Permission, request: object) -> None:
    for target in permission.own:
        for kind, ids in _named(target, request):
            if foreign := _foreign(call, kind, ids):
                raise _not_own(call, name, kind, foreign)
    first: ApiFault | None = None
    for target in permission.or_own:
        for kind, ids in _named(target, request):
            if not (foreign := _foreign(call, kind, ids)):
                return
            first = first or _not_own(call, name, kind, foreign)
    if first is not None:
        raise first


def _not_own(call: Call, name: str, kind: OwnerKind, foreign: str) -> ApiFault:
    who = call.identity
    whose = "what its task made" if who.task else "its owner or an administrator"
    detail = f"{name} changes a {kind.value} that is not the caller's; "
    detail += f"a task's credentials change {whose} only" if who.task else f"only {whose} may"
    return ApiFault(NO_PERMISSION, detail, **{kind.value: foreign[:64]})


def _named(target: Target, request: object) -> Iterable[tuple[OwnerKind, Sequence[str]]]:
    """The ids that the request has in the target's field, by what they are ids of."""
    if target.kind is OwnerKind.EVENTS:
        assert isinstance(request, EventBatch)
        # Looked up as both: an event names its kind itself.
        yield from ((OwnerKind.TASK, request.ids), (OwnerKind.MODEL, request.ids))
        return
    value: Any = request.get(target.field) if isinstance(request, dict) else getattr(request, target.field)
    if value:
        yield target.kind, [value] if isinstance(value, str) else value


def _foreign(call: Call, kind: OwnerKind, ids: Sequence[str]) -> str:
    """The first of the objects that is not the caller's own; empty when all are, or are not there."""
    if kind is OwnerKind.USER:
        return next((id for id in ids if id != call.identity.user), "")
    if kind is OwnerKind.CREDENTIAL:
        found = ((id, key_store.get(call.db, id)) for id in ids)
        return next((id for id, credential in found if credential and credential.user != call.identity.user), "")
    collection = _COLLECTIONS[kind]
    fields = ("user", "made_by", "task", "last_activity_time")
    wanted = Query(
        (q.one_of(q.field(collection.table, "id"), ids),),
        fields=tuple(name for name in fields if name in collection.table.fields),
    )
    foreign = (d for d in collection.find(call.db, wanted) if not is_own(call.identity, kind, d))
    return next((str(d["id"]) for d in foreign if not (kind is OwnerKind.WORKER and _is_left_behind(call, d))), "")


def _is_left_behind(call: Call, worker: Document) -> bool:
    """Whether a job reported as this worker and was killed: the next one on the same GPUs has the same name."""
    maker = worker.get("made_by")
    if not (call.identity.task and maker):
        return False
    task = tasks.get(call.db, maker, ("status",))
    runs = task is not None and task["status"] == TaskStatus.IN_PROGRESS.value
    return not runs or call.now - datetime.fromisoformat(worker["last_activity_time"]) > _SILENT


def is_own(who: AuthenticatedCaller, kind: OwnerKind, document: Document) -> bool:
    """Whether a document with its fields ``user``, ``made_by`` and ``task`` is the caller's own."""
    if not who.task:
        return bool(document.get("user") == who.user)
    of_task = kind is OwnerKind.MODEL and document.get("task") == who.task
    return of_task or who.task in (document["id"] if kind is OwnerKind.TASK else None, document.get("made_by"))
