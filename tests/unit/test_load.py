"""The load that chaos runs make: it is there, and ends with the process that made it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
from faults.load import spinning

SCRIPTS = Path(__file__).parents[2] / "scripts"
MAKES_LOAD = """
import os, sys
sys.path.insert(0, sys.argv[1])
import psutil
from faults.load import spinning
with spinning(2):
    print(*(child.pid for child in psutil.Process().children()), flush=True)
    os._exit(0)  # as if it were killed
"""


def test_so_many_processors_are_busy_until_it_is_over() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with spinning(2):
        children = [child for child in psutil.Process().children() if child.pid not in before]
        assert len(children) == 2
    assert not any(child.is_running() for child in children)


def test_the_loops_of_one_that_was_killed_end_too() -> None:
    argv = [sys.executable, "-c", MAKES_LOAD, str(SCRIPTS)]
    with subprocess.Popen(argv, text=True, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        pids = [int(pid) for pid in maker.stdout.readline().split()]
    assert len(pids) == 2
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(timeout=240)
