"""Deletion of tasks and models: what else it changes, and what it is refused for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Json, Transaction
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.store import event_store, key_store, queue_rows
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Collection, Document, models, tasks
from hpc_agent.server.store.query import Condition, Query
from hpc_agent.wire.error_kinds import (
    INVALID_MODEL_ID,
    INVALID_TASK_ID,
    MODEL_CREATING_TASK_EXISTS,
    MODEL_IN_USE,
    TASK_CANNOT_BE_DELETED,
)

DELETED = "__DELETED__"
"""Before the id of what is gone, where others still refer to it."""
ARCHIVED = "archived"


@dataclass
class Removed:
    """What went along with tasks; the URLs are of files, which stay."""

    models: int = 0
    children: int = 0
    kept_models: int = 0
    events: int = 0
    model_urls: set[str] = field(default_factory=set)
    event_urls: set[str] = field(default_factory=set)
    artifact_urls: set[str] = field(default_factory=set)

    def add(self, other: Removed) -> None:
        self.models += other.models
        self.children += other.children
        self.kept_models += other.kept_models
        self.events += other.events
        self.model_urls |= other.model_urls
        self.event_urls |= other.event_urls
        self.artifact_urls |= other.artifact_urls

    def answer(self, *, urls: bool = True) -> Json:
        """As the fields of an answer."""
        counts = {
            "deleted_models": self.models,
            "updated_children": self.children,
            "updated_models": self.kept_models,
            "events": {"deleted": self.events},
        }
        return {**counts, "urls": self.urls} if urls else counts

    @property
    def urls(self) -> Json:
        return {
            "model_urls": sorted(self.model_urls),
            "event_urls": sorted(self.event_urls),
            "artifact_urls": sorted(self.artifact_urls),
        }


def remove_task(at: Transaction, task: Document, *, force: bool, drop_models: bool = True) -> Removed:
    """Delete a task with its events and keys. ``task`` has ``id``, ``status``, ``models`` and ``execution``.

    Its models that are published or another task's input stay.

    Raises:
        ApiFault: 400/123, it has published children or models, and there is no ``force``.
    """
    removed = forget_run(at, task, force=force, drop_models=drop_models)
    for child in tasks.find(at.db, Query((_is(tasks, "parent", task["id"]),), fields=("id",))):
        removed.children += tasks.update(at.db, child["id"], {"parent": DELETED + task["id"]})
    for model in _made_by(at, task["id"]):
        removed.kept_models += models.update(at.db, model["id"], {"task": DELETED + task["id"]})
    removed.artifact_urls |= output_urls(task)
    key_store.end_with_task(at.db, task["id"], at.time)
    tasks.delete(at.db, task["id"])
    return removed


def output_urls(task: Document) -> set[str]:
    """Where the artifacts that a task made are."""
    artifacts = task.get("execution", {}).get("artifacts") or []
    return {artifact["uri"] for artifact in artifacts if artifact.get("uri") and artifact.get("mode") != "input"}


def forget_run(at: Transaction, task: Document, *, force: bool, drop_models: bool = True) -> Removed:
    """Delete what the run of a task has left: events, entries of queues, models that are not published or in use.

    Raises:
        ApiFault: 400/123, it has published children or models, and there is no ``force``.
    """
    made = _made_by(at, task["id"])
    if not force:
        _refuse_published(at, task["id"], made)
    removed = Removed(event_urls=set(event_store.image_urls(at.db, task["id"])))
    if drop_models:
        for model in made:
            if model.get("ready") is True or in_use(at, model["id"], other_than=task["id"]):
                continue
            removed.model_urls |= {model["uri"]} if model.get("uri") else set()
            removed.event_urls |= set(event_store.image_urls(at.db, model["id"]))
            removed.events += event_store.delete_for_task(at.db, model["id"])
            removed.models += models.delete(at.db, model["id"])
    queue_rows.remove_everywhere(at.db, task["id"])
    removed.events = event_store.delete_for_task(at.db, task["id"])
    return removed


def _refuse_published(at: Transaction, task: str, made: Sequence[Document]) -> None:
    published = _is(tasks, "status", TaskStatus.PUBLISHED.value)
    children = tasks.count(at.db, Query((_is(tasks, "parent", task), published)))
    if children:
        raise ApiFault(
            TASK_CANNOT_BE_DELETED, "it has published children, use force=true", task=task, children=children
        )
    ready = [model["id"] for model in made if model.get("ready") is True]
    if ready:
        raise ApiFault(TASK_CANNOT_BE_DELETED, "it has published models, use force=true", task=task, models=len(ready))


def _made_by(at: Transaction, task: str) -> list[Document]:
    return models.find(at.db, Query((_is(models, "task", task),), fields=("ready", "uri")))


def _is(collection: Collection, name: str, value: str) -> Condition:
    return q.compare(q.field(collection.table, name), "=", value)


def remove_model(at: Transaction, model: Document, *, force: bool, removed: Removed | None = None) -> int:
    """Delete a model; tasks that refer to it do so no more, or by an id that is marked.

    Raises:
        ApiFault: 400/205, it is a task's input; 400/206, the task that made it is published; both without ``force``.
    """
    users = users_of(at, model["id"])
    if users and not force:
        raise ApiFault(MODEL_IN_USE, "it is an input of tasks, use force=true", num_tasks=len(users))
    for user in users:
        _rename(at, user, "input", model["id"])
    maker = tasks.get(at.db, model.get("task", ""), ("status", "models"))
    if maker is not None and maker["status"] == TaskStatus.PUBLISHED.value:
        if not force:
            raise ApiFault(MODEL_CREATING_TASK_EXISTS, "and is published, use force=true", task=maker["id"])
        _rename(at, tasks.get(at.db, maker["id"], ("models",)) or maker, "output", model["id"])
    elif maker is not None:
        sides = _sides(tasks.get(at.db, maker["id"], ("models",)) or maker)
        sides["output"] = [item for item in sides["output"] if item.get("model") != model["id"]]
        tasks.update(at.db, maker["id"], {"models": sides, "last_change": at.time})
    if removed is not None:
        removed.event_urls |= set(event_store.image_urls(at.db, model["id"]))
    event_store.delete_for_task(at.db, model["id"])
    return models.delete(at.db, model["id"])


def _rename(at: Transaction, task: Document, side: str, model: str) -> None:
    sides = _sides(task)
    sides[side] = [{**item, "model": DELETED + model} if item.get("model") == model else item for item in sides[side]]
    tasks.update(at.db, task["id"], {"models": sides, "last_change": at.time})


def _sides(task: Document) -> dict[str, list[Json]]:
    present = task.get("models", {})
    return {side: list(present.get(side) or []) for side in ("input", "output")}


def users_of(at: Transaction, model: str, *, other_than: str = "") -> list[Document]:
    """The tasks that have the model among their inputs, with ``models``."""
    if not model.isalnum():
        return []
    names_it = q.any_of(
        [
            q.matches(q.field(tasks.table, "models"), f'"{model}"'),
            q.compare(q.field(tasks.table, "execution.model"), "=", model),
        ]
    )
    another = q.negate(q.compare(q.field(tasks.table, "id"), "=", other_than))
    found = tasks.find(at.db, Query((names_it, another), fields=("models", "execution")))
    return [
        task
        for task in found
        if any(item.get("model") == model for item in _sides(task)["input"])
        or task.get("execution", {}).get("model") == model
    ]


def in_use(at: Transaction, model: str, *, other_than: str = "") -> bool:
    """Whether a task other than ``other_than`` has the model as an input."""
    return bool(users_of(at, model, other_than=other_than))


def refuse_missing_parent(at: Transaction, parent: str | None) -> None:
    """
    Raises:
        ApiFault: 400/101, the parent is not there, and was not deleted either.
    """
    if parent and not parent.startswith(DELETED) and tasks.get(at.db, parent, ("id",)) is None:
        raise ApiFault(INVALID_TASK_ID, "invalid parent", parent=parent[:64])


def refuse_missing_models(at: Transaction, inputs: Iterable[Mapping[str, Any]]) -> None:
    """
    Raises:
        ApiFault: 400/201, one of the input models is not there.
    """
    for item in inputs:
        id = str(item.get("model") or "")
        if id and models.get(at.db, id, ("id",)) is None:
            raise ApiFault(INVALID_MODEL_ID, id=id[:64])
