"""``get_all_ex``: documents with what they refer to in place of its id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hpc_agent.server import listing
from hpc_agent.server.action import Json
from hpc_agent.server.store import query as q
from hpc_agent.server.store.connection import StoreSession
from hpc_agent.server.store.documents import Collection, Document, models, projects, queues, tasks, users
from hpc_agent.server.store.query import Query
from hpc_agent.struct_types import decodable

_MANY = "[]"
"""A part of a path that is the elements of a list."""
_REFERENCES: Mapping[str, Mapping[str, Collection]] = {
    "tasks": {
        "user": users,
        "project": projects,
        "parent": tasks,
        "execution.queue": queues,
        "models.input.[].model": models,
        "models.output.[].model": models,
    },
    "models": {"user": users, "project": projects, "task": tasks, "parent": models},
    "projects": {"user": users, "parent": projects},
    "queues": {"user": users, "entries.[].task": tasks},
}
"""Where documents of a table hold the id of another one."""


class _Shown(msgspec.Struct, frozen=True):
    only_fields: list[str] | str = []


def find(
    db: StoreSession, collection: Collection, request: Json, **options: Any
) -> tuple[list[Document], dict[str, Any]]:
    """As ``listing.find``; references are objects with their id and the fields that ``only_fields`` asks for.

    ``project.name`` among the fields is the name of the project.
    """
    only = listing.names_of(msgspec.convert(request, decodable(_Shown), strict=False).only_fields)
    whole = [name for name in (_column(collection, name) for name in only) if name]
    found, paging = listing.find(db, collection, {**request, "only_fields": whole}, **options)
    return expand(db, collection, found, only), paging


def _column(collection: Collection, name: str) -> str:
    """What is read of a document for a field: a reference needs the id alone."""
    plain = name.removeprefix("-")
    for path in _REFERENCES[collection.table.name]:
        reference = path.replace(f".{_MANY}", "")
        if plain == reference or plain.startswith(f"{reference}."):
            return name if plain == reference else reference.partition(".")[0]
    return name


def expand(db: StoreSession, collection: Collection, found: list[Document], only: Iterable[str]) -> list[Document]:
    """The documents with their references in place, each looked up once."""
    wanted: dict[Collection, set[str]] = defaultdict(set)
    columns: dict[Collection, set[str]] = defaultdict(set)
    fields: dict[str, list[str]] = {}
    for path, target in _REFERENCES[collection.table.name].items():
        prefix = path.replace(f".{_MANY}", "") + "."
        fields[path] = [name.removeprefix(prefix) for name in only if name.startswith(prefix)]
        if fields[path]:
            columns[target] |= {name.partition(".")[0] for name in fields[path]}
            for document in found:
                wanted[target] |= set(_ids(document, path.split(".")))
    seen = {target: _by_id(db, target, ids, columns[target]) for target, ids in wanted.items()}
    for path, target in _REFERENCES[collection.table.name].items():
        for document in found:
            _put(document, path.split("."), seen.get(target, {}), fields[path])
    return found


def _by_id(db: StoreSession, collection: Collection, ids: Iterable[str], columns: set[str]) -> dict[str, Document]:
    one_of = q.one_of(q.field(collection.table, "id"), sorted(ids))
    shown = tuple(columns - collection.table.hidden) or ("id",)
    return {document["id"]: document for document in collection.find(db, Query((one_of,), fields=shown))}


def _ids(value: Any, path: list[str]) -> Iterable[str]:
    if not path:
        if isinstance(value, str) and value:
            yield value
    elif path[0] == _MANY:
        for item in value if isinstance(value, list) else ():
            yield from _ids(item, path[1:])
    elif isinstance(value, dict) and path[0] in value:
        yield from _ids(value[path[0]], path[1:])


def _put(value: Any, path: list[str], seen: Mapping[str, Document], fields: list[str]) -> None:
    if path[0] == _MANY:
        for item in value if isinstance(value, list) else ():
            _put(item, path[1:], seen, fields)
    elif isinstance(value, dict) and path[0] in value:
        id = value[path[0]]
        if len(path) > 1:
            _put(id, path[1:], seen, fields)
        elif isinstance(id, str) and id:
            value[path[0]] = {"id": id, **listing.project(seen.get(id, {"id": id}), fields)} if fields else {"id": id}
