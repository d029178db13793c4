"""The event log: stable event names, keys, as text or JSON lines."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from syntax_trees import syntax_nodes

from hpc_agent import logs

PACKAGE = Path(__file__).parents[2] / "hpc_agent"
EVENT = re.compile(r"[a-z]+(_[a-z]+)*(\.[a-z]+(_[a-z]+)*)+")
RESERVED = {"time", "level", "event", "exception"}
FORWARDING = "_report_once"
"""The method that logs an event which its callers name."""


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    logger = logging.getLogger("hpc_agent")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield tmp_path / "log"
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.level, logger.propagate = before


def test_text_line_has_event_then_keys(log_file: Path) -> None:
    logs.configure("INFO", log_file)
    logs.EventLog("test").info("task.submitted", task="a1", job=12, reason="no room\nnow")
    time, line = log_file.read_text(encoding="utf-8").split(" ", 1)
    assert datetime.strptime(time, "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007 - local time
    assert line == "INFO task.submitted task=a1 job=12 reason='no room\\nnow'\n"


def test_json_line_is_one_object_in_utc(log_file: Path) -> None:
    logs.configure("INFO", log_file, "json")
    logs.EventLog("test").info("task.submitted", task="a1", job=12, path=Path("/x"), name="\udce4")
    assert log_file.read_text(encoding="utf-8").count("\n") == 1
    line = json.loads(log_file.read_text(encoding="utf-8"))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "INFO", "event": "task.submitted", "task": "a1", "job": 12, "path": "/x", "name": "\udce4"}


def test_json_line_contains_the_traceback(log_file: Path) -> None:
    logs.configure("INFO", log_file, "json")
    try:
        raise OSError("disk full")
    except OSError as error:
        logs.EventLog("test").error("record.not_written", trace=True, error=error)
    line = json.loads(log_file.read_text(encoding="utf-8"))
    assert line["error"] == "disk full"
    assert line["exception"].startswith("Traceback") and "OSError: disk full" in line["exception"]


def test_text_traceback_follows_its_event(log_file: Path) -> None:
    logs.configure("INFO", log_file)
    try:
        raise OSError("disk full")
    except OSError as error:
        logs.EventLog("test").error("record.not_written", trace=True, error=error)
    first, second, *_ = log_file.read_text(encoding="utf-8").splitlines()
    assert first.endswith("ERROR record.not_written error='disk full'") and second.startswith("Traceback")


def test_events_below_the_level_are_not_written(log_file: Path) -> None:
    logs.configure("WARN", log_file)
    logs.EventLog("test").info("task.submitted")
    logs.EventLog("test").warning("server.unreachable")
    assert [line.split()[2] for line in log_file.read_text(encoding="utf-8").splitlines()] == ["server.unreachable"]


def _calls() -> Iterator[tuple[str, ast.Call]]:
    """Place and node of each call that names an event; modules name their ``EventLog`` ``log``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        nodes = syntax_nodes(path)
        forwarded = {
            id(inner)
            for node in nodes
            if isinstance(node, ast.FunctionDef) and node.name == FORWARDING
            for inner in ast.walk(node)
        }
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and id(node) not in forwarded:
                owner = node.func.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                is_log = name in ("log", "_log") and node.func.attr in ("debug", "info", "warning", "error")
                if is_log or node.func.attr == FORWARDING:
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def _alternatives(event: ast.expr) -> list[ast.expr]:
    """``event`` itself, or both results of a conditional expression."""
    return [event.body, event.orelse] if isinstance(event, ast.IfExp) else [event]


def _is_event(event: ast.expr) -> bool:
    return isinstance(event, ast.Constant) and EVENT.fullmatch(str(event.value)) is not None


def test_event_names_are_stable_and_searchable() -> None:
    wrong = [
        place for place, call in _calls() if len(call.args) != 1 or not all(map(_is_event, _alternatives(call.args[0])))
    ]
    assert wrong == []
    assert len(list(_calls())) > 100


def test_no_key_has_the_name_of_a_json_field() -> None:
    assert [place for place, call in _calls() if RESERVED & {keyword.arg for keyword in call.keywords}] == []
