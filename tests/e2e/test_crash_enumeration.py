"""Daemon, executor and supervisor are killed at calls to the outside, one in each part of all there are.

``scripts/crashes --all`` does the same at every one of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.bench import bench
from faults.crashes import all_points, enumerate_crashes, line, sample, summary

CRASHES = 24


@pytest.mark.timeout(900)
def test_killed_anywhere_nothing_is_lost_doubled_or_run_twice(tmp_path: Path) -> None:
    with bench(tmp_path) as site:
        found = all_points(site)
        results = enumerate_crashes(site, sample(found, CRASHES, seed=4), at_once=3, show=lambda _result: None)
    figures = summary(results, len(found))
    table = "\n".join(map(line, results))
    missed = [goal["name"] for goal in figures["goals"] if not goal["met"]]
    assert not missed, f"{missed}\n{table}"
    # What comes at the pace of a clock may not come again in another run.
    assert figures["crashes"] >= CRASHES // 2, table
