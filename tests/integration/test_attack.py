"""Hostile inputs at every door, and the script that tries them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from attacks.case import Case
from attacks.doors import LEAST_TRIED, Attempt, Door, attempts, figures, find_doors

SCRIPT = Path(__file__).parents[2] / "scripts" / "attack_run.py"


@pytest.mark.parametrize(
    "door",
    [pytest.param(door, id=door.module, marks=[pytest.mark.root] if door.needs_root else []) for door in find_doors()],
)
def test_nothing_gets_in(door: Door) -> None:
    tried = list(attempts(door))
    assert len(tried) == len(door.cases) > 0
    assert [f"{attempt.case.name}: {attempt.admitted}" for attempt in tried if attempt.admitted] == []
    assert [f"{attempt.case.name}:\n{attempt.broken}" for attempt in tried if attempt.broken] == []


def test_so_many_are_tried() -> None:
    assert sum(len(door.cases) for door in find_doors()) >= LEAST_TRIED


def test_the_threat_table_names_every_door() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    assert [door.module for door in find_doors() if f"`{door.module}`" not in page] == []


def _broken(_folder: Path) -> str:
    raise LookupError("no answer")


def _left(folder: Path) -> str:
    assert list(folder.iterdir()) == [], "each case has an empty folder"
    (folder / "left").write_text("x")
    return ""


TRIAL = Door(
    "trial",
    "a trial",
    (
        Case("gets in", lambda _: "a file"),
        Case("cannot tell", _broken),
        Case("leaves", _left),
        Case("leaves too", _left),
    ),
)


def test_what_gets_in_and_what_cannot_tell_misses_the_goals() -> None:
    tried = list(attempts(TRIAL))
    found = figures(tried, all_doors=True)
    assert [(attempt.admitted, "LookupError: no answer" in attempt.broken) for attempt in tried] == [
        ("a file", False),
        ("", True),
        ("", False),
        ("", False),
    ]
    assert [(goal["name"], goal["value"], goal["bound"], goal["met"]) for goal in found["goals"]] == [
        ("tried", 4, LEAST_TRIED, False),
        ("admitted: a trial", 1, 0, False),
        ("broken cases", 1, 0, False),
    ]
    good = figures([Attempt(TRIAL, TRIAL.cases[2])] * LEAST_TRIED, all_doors=True)
    assert all(goal["met"] for goal in good["goals"])


def test_the_script_tells_and_writes_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    argv = [sys.executable, str(SCRIPT), "--json", str(file), "user_properties", "variables of jobs"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "DOOR" in done.stdout
    goals = {goal["name"]: goal for goal in json.loads(file.read_text())["goals"]}
    assert set(goals) == {"admitted: user properties", "admitted: variables of jobs", "broken cases"}
    assert all(goal["met"] for goal in goals.values())


def test_a_door_that_does_not_exist_is_named() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "nowhere"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no door 'nowhere'; there are: archives, container_fields, " in done.stderr
