"""Short runs of scripts/chaos: each kind of fault once, tasks of one node, of two, and in job arrays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from capabilities import missing

CHAOS = Path(__file__).parents[2] / "scripts" / "chaos_run.py"
NOT_INSTALLED = 4

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("tasks", "nodes", "more"), [(16, 2, []), (24, 1, ["--arrays"])])
def test_nothing_is_lost_or_run_twice_whatever_is_stopped_killed_and_started_again(
    tmp_path: Path, tasks: int, nodes: int, more: list[str]
) -> None:
    figures = tmp_path / "figures.json"
    wanted = ["--tasks", str(tasks), "--seed", "1", "--nodes", str(nodes), *more]
    argv = [sys.executable, str(CHAOS), *wanted, "--json", str(figures)]
    done = subprocess.run(argv, text=True, capture_output=True, timeout=800, check=False)
    if done.returncode == NOT_INSTALLED:
        missing("slurm", done.stderr.strip())
    print(done.stdout)  # it names the folder where the evidence is left
    assert figures.exists(), done.stderr[-2000:]
    seen = json.loads(figures.read_text())
    wrong = [f"{each['what']}: {each['how']} (task {each['task']})" for each in seen["wrong"]]
    assert not wrong, "; ".join(wrong)
    assert [(goal["name"], goal["value"]) for goal in seen["goals"]] == [
        ("lost", 0),
        ("run twice", 0),
        ("wrong verdict", 0),
    ]
    assert seen["jobs left"] == 0
    assert bool(seen["tasks on many nodes"]) is (nodes > 1)
    assert bool(seen["job arrays"]) is ("--arrays" in more)
    assert [row["fault"] for row in seen["by fault"] if not row["made"]] == []
    assert done.returncode == 0
