"""Schema of the database: created in a new one, brought up to date in one of an earlier version.

The number of the schema is SQLite's ``user_version``; databases from before there was a number have 0. Missing tables,
columns and indexes are added at every start. What needs more than that, such as moving rows to another table, is a step
in ``_STEPS``, which is never changed after a release. Everything happens in one transaction: a start that is killed in
the middle has changed nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping

from hpc_agent.logs import EventLog
from hpc_agent.server.store.schema import ADDED_COLUMNS, DOCUMENTS, REST, TableSchema

log = EventLog("server.store")


class NewerSchemaError(Exception):
    """A newer version of this program made the database."""


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """
    Raises:
        NewerSchemaError: the schema is one that this version does not know.
        sqlite3.Error: the database cannot be changed.
    """
    present = connection.execute("PRAGMA user_version").fetchone()[0]
    if present > VERSION:
        raise NewerSchemaError(
            f"a newer hpc-agent made it (schema {present}, this version knows {VERSION}): install that version"
        )
    is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not is_new:
            _convert(connection, present)
        _complete(connection)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _convert(connection: sqlite3.Connection, present: int) -> None:
    for number, step in enumerate(_STEPS[present:], present + 1):
        log.info("database.converting", to=number, step=step.__name__)
        step(connection)


def _complete(connection: sqlite3.Connection) -> None:
    """Add the tables, columns and indexes that are missing."""
    for table in DOCUMENTS:
        columns = ", ".join(
            f"{field} {kind.sql}" + (" PRIMARY KEY NOT NULL" if field == "id" else "")
            for field, kind in table.fields.items()
        )
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table.name} ({columns})")
        _add_columns(connection, table.name, _columns(table))
    for name, columns_of_older in ADDED_COLUMNS.items():
        _add_columns(connection, name, columns_of_older)
    for statement in _statements(REST):
        connection.execute(statement)


def _columns(table: TableSchema) -> dict[str, str]:
    return {field: kind.sql for field, kind in table.fields.items()}


def _add_columns(connection: sqlite3.Connection, table: str, columns: Mapping[str, str]) -> None:
    """To a table that exists; one that does not is created with them later."""
    present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    for name, kind in columns.items():
        if present and name not in present:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")


def _statements(script: str) -> Iterator[str]:
    """The statements one by one: sqlite3's executescript would commit the transaction first."""
    yield from filter(str.strip, script.split(";"))


def _scalars_by_series(connection: sqlite3.Connection) -> None:
    """Scalars were rows with the names of their task, metric, variant and worker: four times as large, and slow to
    average. An index became wider."""
    for statement in _statements(
        """
        DROP INDEX IF EXISTS tasks_by_project;
        CREATE TABLE IF NOT EXISTS scalars (
            task TEXT, metric TEXT, variant TEXT, iter INTEGER, timestamp INTEGER, value REAL, worker TEXT
        );
        ALTER TABLE scalars RENAME TO wide_scalars;
        CREATE TABLE scalar_series (
            id INTEGER PRIMARY KEY,
            task TEXT NOT NULL,
            metric TEXT NOT NULL,
            variant TEXT NOT NULL,
            worker TEXT NOT NULL,
            UNIQUE (task, metric, variant)
        );
        CREATE TABLE scalar_points (
            series INTEGER NOT NULL,
            iter INTEGER NOT NULL,
            timestamp INTEGER NOT NULL,
            value REAL,
            PRIMARY KEY (series, iter)
        ) WITHOUT ROWID;
        INSERT INTO scalar_series (task, metric, variant, worker)
            SELECT task, metric, variant, max(worker) FROM wide_scalars GROUP BY task, metric, variant;
        INSERT INTO scalar_points (series, iter, timestamp, value)
            SELECT s.id, w.iter, w.timestamp, w.value FROM scalar_series s
            JOIN wide_scalars w ON w.task = s.task AND w.metric = s.metric AND w.variant = s.variant
            ORDER BY s.id, w.iter;
        DROP TABLE wide_scalars;
        """
    ):
        connection.execute(statement)


def _whole_tasks(connection: sqlite3.Connection) -> None:
    """Tasks had only what their client sent. The SDK's pipelines and ``Task.delete`` iterate over the artifacts."""
    execution = '{"artifacts": [], "model_desc": {}, "model_labels": {}, "parameters": {}, "test_split": 0}'
    script = '{"binary": "python", "repository": "", "entry_point": "", "requirements": {}}'
    for column, fields, sign in (("execution", execution, "$.artifacts"), ("script", script, "$.requirements")):
        connection.execute(
            f"UPDATE tasks SET {column} = json_patch(?, coalesce({column}, '{{}}')) "
            f"WHERE json_type({column}, ?) IS NULL OR json_type({column}, ?) = 'null'",
            (fields, sign, sign),
        )


_STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_scalars_by_series, _whole_tasks)
"""The first leads from schema 0 to 1."""
VERSION = len(_STEPS)
