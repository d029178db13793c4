"""Daemon, executor and supervisor are killed at calls to the outside, one in each part of all there are.

``scripts/crashes --all`` does the same at every one of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "scripts" / "crashes_run.py"
CRASHES = 16


@pytest.mark.timeout(900)
def test_killed_anywhere_nothing_is_lost_doubled_or_run_twice(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    argv = [sys.executable, str(RUN), "--sample", str(CRASHES), "--seed", "4", "--json", str(figures)]
    done = subprocess.run(argv, text=True, capture_output=True, timeout=800, check=False)
    print(done.stdout)  # it names the folder where the evidence is left
    assert figures.exists(), done.stderr[-2000:]
    seen = json.loads(figures.read_text())
    assert seen["what went wrong"] == []
    assert [goal["name"] for goal in seen["goals"] if not goal["met"]] == []
    assert seen["crashes"] == CRASHES
    assert done.returncode == 0
