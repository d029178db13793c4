"""Processes that a scheduler starts for a command: found by their environment, and signalled in its place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from hpc_agent.child_processes import reaped, start_tracked
from hpc_agent.executor.step_process import STEP_OF, StepProcess
from hpc_agent.process.supervised import Supervised
from hpc_agent.telemetry.node_processes import NodeProcesses

PROGRAM = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1], "got").touch(), sys.exit(0)))
pathlib.Path(sys.argv[1], "begun").touch()
while True:  # a signal may come before one long sleep
    time.sleep(0.1)
"""
COMMAND = 'trap "touch command-got; exit 1" TERM; touch trapped; while [ ! -e over ]; do sleep 0.05; done'


class Step:
    """A command, and a process that is not its child."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = uuid.uuid4().hex
        output = os.open(os.devnull, os.O_WRONLY)
        self.command = Supervised(["bash", "-c", COMMAND], env=os.environ, cwd=folder, output=output)
        os.close(output)
        wait_until("the command's trap", (folder / "trapped").exists, bool)
        self.found = StepProcess(self.command, NodeProcesses(STEP_OF, name))
        self.environ = {**os.environ, STEP_OF: name}
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", PROGRAM, str(self.folder)]
        # A child of ours that is not taken for one of the command's.
        self.process = start_tracked(lambda: subprocess.Popen(argv, env=self.environ))
        wait_until("the process", (self.folder / "begun").exists, bool)
        return self.process

    def end(self) -> None:
        self.command.signal(signal.SIGKILL)
        self.command.wait(60)
        if self.process:
            self.process.kill()
            self.process.wait(60)
            reaped(self.process.pid)


@pytest.fixture
def step(tmp_path: Path) -> Iterator[Step]:
    made = Step(tmp_path)
    try:
        yield made
    finally:
        made.end()


def test_the_process_gets_a_signal_and_the_command_does_not(step: Step) -> None:
    process = step.begin()
    assert step.found.signal(signal.SIGTERM)
    assert process.wait(60) == 0 and (step.folder / "got").exists()
    assert step.found.wait(0) is None
    (step.folder / "over").touch()
    assert step.found.wait(60) == 0 and not (step.folder / "command-got").exists()


def test_before_the_process_has_begun_the_command_gets_it(step: Step) -> None:
    step.found.signal(signal.SIGTERM)
    assert step.found.wait(60) == 1 and (step.folder / "command-got").exists()


def test_a_kill_ends_both(step: Step) -> None:
    process = step.begin()
    step.found.signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    step.found.signal(signal.SIGKILL)
    assert step.found.wait(60) is not None


def test_processes_are_chosen_by_their_pid(step: Step) -> None:
    process = step.begin()
    assert step.found.signal_chosen(signal.SIGTERM, lambda pid: pid == process.pid) == [process.pid]
    assert process.wait(60) == 0
