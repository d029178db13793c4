"""The models that tasks made, and who still uses them."""

from __future__ import annotations

from hpc_agent.server.action import Moment
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import models, tasks
from hpc_agent.server.store.query import Query


def in_use(at: Moment, model: str, *, besides: str = "") -> bool:
    """Whether a task other than ``besides`` names the model among its inputs or outputs."""
    if not model.isalnum():
        return False
    names_it = q.matches(q.field(tasks.table, "models"), f'"{model}"')
    another = q.negate(q.compare(q.field(tasks.table, "id"), "=", besides))
    return bool(tasks.find(at.db, Query((names_it, another), fields=("name",), limit=1)))


def drop_models_of(at: Moment, task: str) -> int:
    """Delete the records of the models that ``task`` made and no other task uses; returns how many."""
    made = models.find(at.db, Query((q.compare(q.field(models.table, "task"), "=", task),), fields=("name",)))
    return sum(models.delete(at.db, model["id"]) for model in made if not in_use(at, model["id"], besides=task))
