"""Ledger of a chaos run: a start says which processes of earlier starts live, of whatever rank."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from faults.chaos_ledger import Job, Start, read_ranks
from waiting import wait_until

WAITS = Job(lines=1, pause=600, code=0, queue="", partition="", nodes=2)


def test_a_rank_that_outlives_its_start_is_seen_by_all_ranks_of_the_next(tmp_path: Path) -> None:
    ledger = tmp_path / "task-001"
    with ExitStack() as running:

        def start(rank: int, restart: int) -> subprocess.Popen[bytes]:
            env = {**os.environ, "RANK": str(rank), "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restart)}
            child = subprocess.Popen([sys.executable, "-c", WAITS.script(ledger)], env=env, stdout=subprocess.DEVNULL)
            running.enter_context(child)
            running.callback(child.kill)
            wait_until("its start", lambda: any(found.pid == child.pid for found in starts(rank)))
            return child

        def starts(rank: int) -> list[Start]:
            return read_ranks(ledger, WAITS.nodes)[rank]

        first, outlives = start(0, 0), start(1, 0)
        first.kill()
        first.wait()
        start(0, 1)
        start(1, 1)
        assert [found.still_alive for found in starts(0)] == [[], [outlives.pid]]
        assert [found.still_alive for found in starts(1)] == [[], [outlives.pid]]
