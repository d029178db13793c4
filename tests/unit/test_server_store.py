"""The database: reading has an end, and what is deleted is gone."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from random import Random

import pytest

from hpc_agent.clock import SYSTEM
from hpc_agent.server.store import event_store
from hpc_agent.server.store.connection import DocumentStore, ReadTooLongError
from hpc_agent.server.store.event_store import StoredChunk

FOREVER = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"


def test_a_reader_that_takes_too_long_is_ended_and_good_again(tmp_path: Path) -> None:
    store = DocumentStore(tmp_path / "server.db", read_seconds=0.2)
    # More often than there are readers: none of them is lost.
    for _ in range(6):
        with pytest.raises(ReadTooLongError), store.read() as db:
            db.row(FOREVER)
    with store.read() as db:
        assert db.row("SELECT 1") == (1,)
    store.close()


def test_reader_refuses_to_change_the_database(tmp_path: Path) -> None:
    store = DocumentStore(tmp_path / "server.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"), store.read() as db:
        event_store.add_chunks(db, [StoredChunk("task", 1, "INFO", "", "lost")])
    with store.write() as db:
        event_store.add_chunks(db, [StoredChunk("task", 1, "INFO", "", "kept")])
    store.close()


def test_what_is_deleted_is_in_no_file_any_more(tmp_path: Path) -> None:
    store = DocumentStore(tmp_path / "server.db")
    with store.write() as db:
        event_store.add_chunks(db, [StoredChunk("task", 1, "INFO", "", "unmistakable" * 9)])
    store.fold()
    with store.write() as db:
        event_store.delete_for_task(db, "task")
    store.fold()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    store.close()
    assert b"unmistakable" not in kept


def test_a_search_is_given_up_in_time_though_each_field_takes_long(tmp_path: Path) -> None:
    """SQLite looks at the clock after a thousand of its steps, which may be dozens of searches of seconds each."""
    store = DocumentStore(tmp_path / "server.db", read_seconds=0.3)
    text = "".join(Random(1).choices("ab", k=1_000_000))
    began = SYSTEM.monotonic()
    try:
        with pytest.raises(ReadTooLongError), store.read() as db:
            db.rows(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 40) "
                "SELECT count(*) FROM n WHERE ? REGEXP (? || i)",
                (text, "(?:a[ab]{900}c|b[ab]{900}c)"),
            )
        with store.read() as db:
            assert db.row("SELECT 'abc' REGEXP 'B'") == (1,)
    finally:
        store.close()
    assert SYSTEM.monotonic() - began < 10
