"""One writer, some readers. Each state change is one transaction; a killed server loses none that it answered.

Write-ahead log: readers never wait for the writer. What changes a task's, queue's or project's state is synced to disk
before it is answered (``synchronous=FULL``), so that a claim stays claimed after a power cut; events and heartbeats are
not (``NORMAL``: they survive a killed process, a power cut may cost the last moments of them), because they come many
times a second and the next ones follow anyway.
"""

from __future__ import annotations

import math
import os
import queue
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc_agent.clock import SYSTEM
from hpc_agent.errors import ConfigError
from hpc_agent.server.store.integrity import DamagedDatabaseError, check
from hpc_agent.server.store.migrations import NewerSchemaError, bring_up_to_date
from hpc_agent.server.store.numeric_order import compare_numerically
from hpc_agent.server.store.pattern import search
from hpc_agent.server.store.query import NUMERIC_ORDER
from hpc_agent.server.store.writer_turns import WriterTurns

_READERS = 4
_BUSY_SECONDS = 30.0
_READ_SECONDS = 20.0
_FOLD_MS = 250
_CHECK_SECONDS = 20.0
"""Of the check at the start: enough for some gigabytes."""
LARGEST_READ = 128 * 1024 * 1024
"""Characters that one transaction reads: an answer is held in memory three times while it is made."""
_STEPS = 1000
"""Of SQLite's machine, between two looks at the clock."""

Row = tuple[Any, ...]
Parameters = Sequence[Any] | Mapping[str, Any]


class ReadTooLongError(Exception):
    """A reading transaction was ended because it took too long, or too much came of it."""


class StoreSession:
    """One transaction: what services hand to the modules of this package."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._characters = 0

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """
        Raises:
            ReadTooLongError: all rows of the transaction have more text than an answer may have.
        """
        return list(self.each(sql, parameters))

    def each(self, sql: str, parameters: Parameters = ()) -> Iterator[Row]:
        """As ``rows``, read one by one: who stops early has not paid for the rest."""
        for row in self._connection.execute(sql, parameters):
            self._characters += sum(len(value) for value in row if isinstance(value, str))
            if self._characters > LARGEST_READ:
                raise ReadTooLongError(f"more than {LARGEST_READ} characters came of it")
            yield row

    def row(self, sql: str, parameters: Parameters = ()) -> Row | None:
        found: Row | None = self._connection.execute(sql, parameters).fetchone()
        return found

    def run(self, sql: str, parameters: Parameters = ()) -> int:
        """Execute and return how many rows changed."""
        return self._connection.execute(sql, parameters).rowcount

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """A part of the transaction that is undone when the block raises, and it alone."""
        self._connection.execute("SAVEPOINT attempt")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK TO attempt")
            raise
        finally:
            self._connection.execute("RELEASE attempt")

    def run_many(self, sql: str, parameters: Sequence[Sequence[object]]) -> None:
        self._connection.executemany(sql, parameters)


class _Connection(sqlite3.Connection):
    """Knows patterns, and the time after which what it does is given up."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._end = math.inf
        self.create_function("REGEXP", 2, self._matches, deterministic=True)
        self.create_collation(NUMERIC_ORDER, compare_numerically)

    def limit(self, end: float) -> None:
        """``end`` by the monotonic clock; infinity for none."""
        self._end = end
        self.set_progress_handler(None if end == math.inf else self._is_late, _STEPS)

    def _is_late(self) -> bool:
        return SYSTEM.monotonic() > self._end

    def _matches(self, pattern: str, text: object) -> bool:
        """SQL's ``text REGEXP pattern``: ClearML's patterns are unanchored and ignore case.

        See docs/internals/clearml-protocol.md#lists.
        """
        # SQLite calls the progress handler after this many steps, each of which may be a search.
        if self._is_late():
            raise TimeoutError
        return text is not None and search(pattern, str(text))


class DocumentStore:
    """The database file. Thread-safe."""

    def __init__(self, path: Path, *, read_seconds: float = _READ_SECONDS) -> None:
        """``read_seconds``: how long a reading transaction may take; readers are few, and others wait for them.

        Raises:
            ConfigError: the file cannot be opened, is damaged, or is not a database of this version of the server.
        """
        self._path = path
        self._read_seconds = read_seconds
        self._turns = WriterTurns()
        self._readers: queue.LifoQueue[_Connection] = queue.LifoQueue()
        # SQLite would create it with the umask's mode; what users train is theirs alone.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            self._writer = self._connect()
            check(self._writer, _CHECK_SECONDS)
            bring_up_to_date(self._writer)
        except (sqlite3.Error, DamagedDatabaseError, NewerSchemaError) as error:
            raise ConfigError(_refusal(path, error)) from error
        for _ in range(_READERS):
            reader = self._connect()
            # A reading transaction is rolled back: a change in it would be answered, and lost.
            reader.execute("PRAGMA query_only=ON")
            self._readers.put(reader)

    def _connect(self) -> _Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        connection.execute("PRAGMA journal_mode=WAL")
        # What is deleted is overwritten, not only forgotten.
        connection.execute("PRAGMA secure_delete=ON")
        return connection

    @contextmanager
    def read(self) -> Iterator[StoreSession]:
        """A consistent view; waits for a free reader, never for the writer.

        Raises:
            ReadTooLongError: it took longer than it may.
            sqlite3.OperationalError: it would change the database.
        """
        connection = self._readers.get()
        end = SYSTEM.monotonic() + self._read_seconds
        connection.limit(end)
        try:
            connection.execute("BEGIN")
            yield StoreSession(connection)
        except sqlite3.OperationalError as error:
            if SYSTEM.monotonic() > end:
                raise ReadTooLongError(f"it was ended after {self._read_seconds:.0f} seconds") from error
            raise
        finally:
            connection.limit(math.inf)
            connection.execute("ROLLBACK")
            self._readers.put(connection)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[StoreSession]:
        """The only writer at this moment; committed when the block ends well, rolled back when it raises.

        What is ``durable`` goes before what is not.
        """
        with self._turns.turn(urgent=durable):
            connection = self._writer
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield StoreSession(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def fold(self) -> bool:
        """Write the log back into the file and empty it, so that nothing deleted stays in it.

        Returns False where a reader needed it: the writer does not wait long for that.
        """
        with self._turns.turn(urgent=True):
            self._writer.execute(f"PRAGMA busy_timeout={_FOLD_MS}")
            try:
                is_busy = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                self._writer.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000:.0f}")
        return not is_busy

    def close(self) -> None:
        """Fold the log into the file and close."""
        for _ in range(_READERS):
            self._readers.get().close()
        with self._turns.turn(urgent=True):
            self._writer.close()


def _refusal(path: Path, error: Exception) -> str:
    # Where the damage is in the schema, every statement fails before the check gets to it.
    if isinstance(error, DamagedDatabaseError) or "malformed" in str(error):
        remedy = "restore a backup (docs/server.md), or save what can be read with .recover of the program sqlite3"
        return f"the database {path} is damaged ({error}): {remedy}"
    return f"the database {path} cannot be opened: {error}; name another data folder with --data-dir"
