"""The database file: earlier, newer and damaged ones, and how long its queries take."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_core import ADMINISTRATOR, ServerCore

from hpc_agent.errors import ConfigError
from hpc_agent.server.store import scalar_store
from hpc_agent.server.store.connection import DocumentStore
from hpc_agent.server.store.migrations import VERSION

SCHEMAS = sorted((Path(__file__).parents[1] / "data" / "server").glob("schema_*.sql"))
"""Databases as released versions made them, with a task that has reported: a new one with each change of the schema."""


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[ServerCore]:
    core = ServerCore(folder)
    try:
        yield core
    finally:
        core.close()


def raw(folder: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(folder / "server.db", isolation_level=None))


def schema_of(folder: Path) -> dict[str, str]:
    """``{name: SQL}`` of tables, indexes and views, but for the order in which columns were added."""
    with raw(folder) as database:
        return {
            name: " ".join(
                sorted((sql or "").replace("IF NOT EXISTS ", "").replace(",", " ").replace(")", " ").split())
            )
            for name, sql in database.execute("SELECT name, sql FROM sqlite_master")
        }


@pytest.mark.parametrize("dump", SCHEMAS, ids=lambda path: str(path.stem))
def test_a_database_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path, dump: Path) -> None:
    earlier, new = tmp_path / "earlier", tmp_path / "new"
    earlier.mkdir()
    new.mkdir()
    with raw(earlier) as database:
        database.executescript(dump.read_text(encoding="utf-8"))
    with opened(earlier) as server, opened(new):
        [task] = server("tasks.get_all", name="task of before")["tasks"]
        assert (task["user"], task["status"], task["tags"]) == (ADMINISTRATOR, "queued", ["old"])
        assert (task["execution"]["artifacts"], task["script"]["binary"]) == ([], "python")
        assert server("queues.get_next_task", queue=task["execution"]["queue"])["entry"]["task"] == task["id"]
        console = server("events.get_task_log", task=task["id"], order="asc")["events"]
        assert [line["msg"] for line in console] == ["line 0", "line 1", "line 2"]
        curves = server("events.scalar_metrics_iter_histogram", task=task["id"])
        curve = {"x": [0, 1, 2, 3], "y": [0.0, 0.25, 0.5, 0.75]}
        assert curves == {
            "loss": {"train": {"name": "train", **curve}, "validation": {"name": "validation", **curve}},
            "accuracy": {"validation": {"name": "validation", **curve}},
        }
        [single] = server("events.get_task_single_value_metrics", tasks=[task["id"]])["tasks"]
        assert [(one["metric"], one["value"]) for one in single["values"]] == [("Summary", 0.5)]
        assert [plot["metric"] for plot in server("events.get_task_plots", task=task["id"])["plots"]] == ["confusion"]
    assert schema_of(earlier) == schema_of(new)


def test_a_start_that_fails_in_the_middle_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    with raw(tmp_path) as database:
        database.executescript(SCHEMAS[0].read_text(encoding="utf-8"))
        # Two tasks of one name are nothing special; two projects cannot be indexed.
        database.execute("DROP INDEX projects_by_name")
        database.execute("INSERT INTO projects (id, name) VALUES ('twin', 'project of before')")
        before = list(database.iterdump())
    with pytest.raises(ConfigError, match="UNIQUE constraint failed"):
        DocumentStore(tmp_path / "server.db")
    with raw(tmp_path) as database:
        assert list(database.iterdump()) == before


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with raw(tmp_path) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(ConfigError, match=f"a newer hpc-agent made it .schema {VERSION + 1}, this version knows"):
        DocumentStore(tmp_path / "server.db")


PAGE = 4096
NOISE = random.Random(1).randbytes(64)


@pytest.mark.parametrize("damaged_from", [2, 40], ids=["in the schema", "behind the schema"])
def test_a_damaged_database_is_refused_with_what_is_wrong(tmp_path: Path, damaged_from: int) -> None:
    with opened(tmp_path) as server:
        for number in range(300):
            server("tasks.create", name=f"task {number}", type="training")
    path = tmp_path / "server.db"
    content = bytearray(path.read_bytes())
    for start in range(damaged_from * PAGE, len(content), PAGE):
        content[start : start + len(NOISE)] = NOISE
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"is damaged .*restore a backup"):
        DocumentStore(path)


POINTS = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999)
INSERT INTO scalar_points (series, iter, timestamp, value)
SELECT s.id, i, 1800000000000 + 10 * i, i FROM n, scalar_series s WHERE i > 0
"""


def test_a_curve_of_a_million_points_is_averaged_quickly(tmp_path: Path) -> None:
    # Processor time is what is measured: a busy machine does not lengthen it.
    store = DocumentStore(tmp_path / "server.db", read_seconds=600)
    with store.write(durable=False) as db:
        scalar_store.add_points(db, ("task", "loss", "train"), [(0, 1_800_000_000_000, 0.0)], worker="node")
        db.run(POINTS)
    taken = {}
    with store.read() as db:
        for axis in ("iter", "timestamp"):
            began = time.process_time()
            [curve] = scalar_store.series(db, "task", axis=axis, samples=1000)
            taken[axis] = time.process_time() - began
            assert curve.x[1] - curve.x[0] == (1000 if axis == "iter" else 10_000)
            assert curve.y == [1000 * part + 499.5 for part in range(1000)]
        began = time.process_time()
        assert scalar_store.latest_values(db, "task") == [("loss", "train", 999_999, 999_949.5)]
        taken["latest"] = time.process_time() - began
    store.close()
    print(taken)
    assert taken["iter"] < 0.7 and taken["timestamp"] < 1.5 and taken["latest"] < 0.1, taken


QUERIES = {
    "tasks of a project, newest first": "SELECT id FROM tasks WHERE project = 'p' ORDER BY last_update DESC LIMIT 9",
    "newest tasks": "SELECT id FROM tasks ORDER BY last_update DESC LIMIT 9",
    "tasks of a status": "SELECT id FROM tasks WHERE status = 's' AND last_update < 't'",
    "children": "SELECT id FROM tasks WHERE parent = 'p'",
    "models of a project": "SELECT id FROM models WHERE project = 'p'",
    "models of a task": "SELECT id FROM models WHERE task = 't'",
    "newest console": "SELECT msg FROM console WHERE task = 't' ORDER BY timestamp DESC, id DESC LIMIT 9",
    "what arrived": "SELECT msg FROM console WHERE task = 't' AND id > 9 ORDER BY id LIMIT 9",
    "single values": "SELECT value FROM scalars WHERE task = 't' AND iter = 0",
    "points": "SELECT value FROM scalars WHERE task = 't' AND metric = 'm' AND variant = 'v' AND iter > 9",
    "reports": "SELECT body FROM reports WHERE task = 't' AND type = 'plot'",
    "queue": "SELECT task FROM queue_entries WHERE queue = 'q' ORDER BY position LIMIT 1",
    "queues of a task": "SELECT queue FROM queue_entries WHERE task = 't'",
}


def test_indexes_fit_the_queries(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with raw(tmp_path) as database:
        plans = {
            name: [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {query}")] for name, query in QUERIES.items()
        }
    slow = {
        name: plan
        for name, plan in plans.items()
        if any(step.startswith("USE TEMP B-TREE") or (step.startswith("SCAN") and "USING" not in step) for step in plan)
    }
    assert slow == {}
