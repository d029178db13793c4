"""Tasks, projects, queues, models, workers and users: dictionaries with ClearML's field names, a column each."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from hpc_agent.server.store.connection import Row, StoreSession
from hpc_agent.server.store.query import Query
from hpc_agent.server.store.schema import MODELS, PROJECTS, QUEUES, TASKS, USERS, WORKERS, ColumnKind, TableSchema

Document = dict[str, Any]
LARGEST_FIELD = 16 * 1024 * 1024
"""Characters: what the reference server's database takes for a whole document."""


class FieldTooLargeError(ValueError):
    """A field that is too large for a document, named in the message."""


class Collection:
    """One table of documents. Fields that are null in a row are absent from the dictionary."""

    def __init__(self, table: TableSchema) -> None:
        self.table = table

    def get(self, db: StoreSession, id: str, fields: Iterable[str] = ()) -> Document | None:
        """One document, or None; only ``fields`` (top-level names) and the id where given."""
        names = self._names(fields)
        row = db.row(f"SELECT {', '.join(names)} FROM {self.table.name} WHERE id = ?", (id,))
        return None if row is None else self._document(names, row)

    def find(self, db: StoreSession, query: Query) -> list[Document]:
        """All documents that match."""
        names = self._names(query.fields)
        sql, parameters = query.sql(self.table)
        return [
            self._document(names, row)
            for row in db.rows(f"SELECT {', '.join(names)} FROM {self.table.name} {sql}", parameters)
        ]

    def count(self, db: StoreSession, query: Query) -> int:
        sql, parameters = query.sql(self.table)
        row = db.row(f"SELECT count(*) FROM (SELECT 1 FROM {self.table.name} {sql})", parameters)
        assert row is not None
        return int(row[0])

    def insert(self, db: StoreSession, document: Mapping[str, object]) -> None:
        """Add a document; fields that the table does not have are dropped."""
        names = [name for name in self.table.fields if name in document]
        marks = ", ".join("?" * len(names))
        db.run(
            f"INSERT INTO {self.table.name} ({', '.join(names)}) VALUES ({marks})",
            [self._stored(name, document[name]) for name in names],
        )

    def update(self, db: StoreSession, id: str, changes: Mapping[str, object]) -> int:
        """Replace top-level fields; None removes one. Returns 1, or 0 if the document does not exist."""
        names = [name for name in changes if name in self.table.fields]
        if not names:
            return 0
        assignments = ", ".join(f"{name} = ?" for name in names)
        return db.run(
            f"UPDATE {self.table.name} SET {assignments} WHERE id = ?",
            [*(self._stored(name, changes[name]) for name in names), id],
        )

    def delete(self, db: StoreSession, id: str) -> int:
        return db.run(f"DELETE FROM {self.table.name} WHERE id = ?", (id,))

    def _names(self, fields: Iterable[str]) -> Sequence[str]:
        wanted = set(fields)
        if not wanted:
            return [name for name in self.table.fields if name not in self.table.hidden]
        return [name for name in self.table.fields if name in wanted or name == "id"]

    def _document(self, names: Sequence[str], row: Row) -> Document:
        return {name: self._loaded(name, value) for name, value in zip(names, row, strict=True) if value is not None}

    def _stored(self, name: str, value: object) -> object:
        """
        Raises:
            FieldTooLargeError: there is more of it than any document may have, perhaps gathered from many calls.
        """
        if value is not None and self.table.fields[name] is ColumnKind.JSON:
            value = msgspec.json.encode(value).decode()
        if isinstance(value, str) and len(value) > LARGEST_FIELD:
            raise FieldTooLargeError(
                f"{name} of one of the {self.table.name} would have {len(value)} characters, {LARGEST_FIELD} are the "
                "most; upload what is large as a file"
            )
        return value

    def _loaded(self, name: str, value: Any) -> Any:
        kind = self.table.fields[name]
        if kind is ColumnKind.JSON:
            return msgspec.json.decode(value)
        return bool(value) if kind is ColumnKind.BOOL else value


tasks = Collection(TASKS)
projects = Collection(PROJECTS)
queues = Collection(QUEUES)
models = Collection(MODELS)
workers = Collection(WORKERS)
users = Collection(USERS)


def new_id() -> str:
    """32 hexadecimal digits."""
    return uuid.uuid4().hex
