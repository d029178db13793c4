"""The signals that end a task's process: which programs get SIGINT after SIGTERM, and for which reasons."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from waiting import HANG_S, wait_until

from hpc_agent.child_processes import reaped, start_tracked
from hpc_agent.clock import SYSTEM
from hpc_agent.domain.job import CurrentJob, JobState
from hpc_agent.executor import supervise
from hpc_agent.executor.stop_conditions import StopConditions, StopReason
from hpc_agent.executor.supervise import ProcessSupervisor
from hpc_agent.process.supervised import StopTimeouts, Supervised
from hpc_agent.schedulers.base import CurrentJobClient, NullCurrentJob

# As the SDK does it; the real one is in tests/e2e/test_abort.py.
SWALLOWS = """
import signal, time
def swallow(number, frame):
    return signal.SIG_DFL
for name in ("TERM", "SEGV", "ABRT", "ILL", "FPE", "QUIT"):
    signal.signal(getattr(signal, "SIG" + name), swallow)
"""
WAITS = """
try:
    print("begun", flush=True)
    while True:
        time.sleep(600)
finally:
    print("finally ran", flush=True)
"""
SAVES = """
import signal, sys, time
def save(number, frame):
    time.sleep(1.5)
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
"""
FORKS = """
import os
if os.fork() == 0:
    while True:
        time.sleep(600)
"""


@pytest.fixture(autouse=True)
def other_children_are_left_alone() -> Iterator[None]:
    """This process also has the servers of other tests as children, an executor only its task."""
    others = psutil.Process().children()
    for other in others:
        start_tracked(lambda other=other: other)  # type: ignore[misc]
    yield
    for other in others:
        reaped(other.pid)


def test_processes_that_others_wait_for_get_no_signal(tmp_path: Path) -> None:
    """Of their own accord these tests would not notice: the next ones would miss their server."""
    other = start_tracked(lambda: subprocess.Popen([sys.executable, "-c", SWALLOWS + WAITS], stdout=subprocess.DEVNULL))
    try:
        run = Run(SWALLOWS + WAITS, tmp_path, StopTimeouts(term=60, interrupt=0.5))
        assert run.end(StopReason.ABORT) == -signal.SIGINT
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        reaped(other.pid)


@dataclass
class EndingJob:
    """A job of which Slurm has written that it ends it, or has not; ``None``: the output cannot be read."""

    announced: bool | None
    state: CurrentJob = field(default_factory=lambda: CurrentJob(JobState.COMPLETING, preempted=True))
    waits: threading.Event | None = None
    """The output lies on a file server that answers only then."""
    asked: bool = False

    def look(self) -> CurrentJob | None:
        return self.state

    def is_end_announced(self) -> bool | None:
        self.asked = True
        if self.waits is not None:
            self.waits.wait()
        return self.announced

    def requeue(self) -> str:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError


NO_JOB = NullCurrentJob()


class Run:
    """A supervised program, and what was said about it."""

    def __init__(
        self,
        text: str,
        folder: Path,
        timeouts: StopTimeouts,
        *,
        in_shell: bool = False,
        job: CurrentJobClient = NO_JOB,
    ) -> None:
        self.output = folder / "output"
        with self.output.open("wb") as file:
            argv = [sys.executable, "-c", text]
            if in_shell:
                argv = ["bash", "-c", f"{shlex.join(argv)}\necho the shell goes on"]
            self.child = Supervised(argv, env=os.environ, cwd=folder, output=file.fileno())
        self.said: list[str] = []
        self.stop = StopConditions(job, 0, 30, SYSTEM)
        self.supervisor = ProcessSupervisor(self.child, self.said.append, self.stop, SYSTEM, timeouts)
        wait_until("its first line", lambda: "begun" in self.text)

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def end(self, reason: StopReason) -> int:
        self.stop.request.request(reason)
        return self.supervisor.run()


@pytest.mark.parametrize("reason", [StopReason.ABORT, StopReason.TAKEN_BACK, StopReason.INTERRUPT])
def test_a_program_that_swallows_sigterm_as_the_sdk_does_gets_sigint(reason: StopReason, tmp_path: Path) -> None:
    run = Run(SWALLOWS + WAITS, tmp_path, StopTimeouts(term=60, interrupt=0.5))
    assert run.end(reason) == -signal.SIGINT
    assert run.text.splitlines()[:2] == ["begun", "finally ran"]
    assert "SIGINT is sent" in run.said[-1]


def test_its_forked_processes_get_sigint_too(tmp_path: Path) -> None:
    run = Run(SWALLOWS + FORKS + WAITS.replace("time.sleep(600)", "os.wait()"), tmp_path, StopTimeouts(60, interrupt=1))
    assert run.end(StopReason.ABORT) == -signal.SIGINT
    assert run.text.count("KeyboardInterrupt") == 2


@pytest.mark.parametrize("reason", [StopReason.SIGNAL, StopReason.TIME_LIMIT])
def test_at_the_schedulers_word_a_program_has_its_whole_grace_period(reason: StopReason, tmp_path: Path) -> None:
    run = Run(SWALLOWS + WAITS, tmp_path, StopTimeouts(term=1.5, interrupt=0.3))
    run.stop.deadline.warned = True
    assert run.end(reason) == -signal.SIGKILL
    assert "finally ran" not in run.text


def test_a_program_without_the_sdk_is_not_interrupted_while_it_saves(tmp_path: Path) -> None:
    run = Run(SAVES + WAITS, tmp_path, StopTimeouts(term=60, interrupt=0.3))
    assert run.end(StopReason.ABORT) == 0
    assert "saved\n" in run.text and "KeyboardInterrupt" not in run.text


def test_with_zero_seconds_nothing_is_interrupted(tmp_path: Path) -> None:
    run = Run(SWALLOWS + WAITS, tmp_path, StopTimeouts(term=1, interrupt=0))
    assert run.end(StopReason.ABORT) == -signal.SIGKILL
    assert "finally ran" not in run.text


def test_a_finally_block_is_not_interrupted_again(tmp_path: Path) -> None:
    slow = WAITS.replace("finally:\n", "finally:\n    time.sleep(2)\n")
    run = Run(SWALLOWS + slow, tmp_path, StopTimeouts(term=60, interrupt=0.3))
    assert run.end(StopReason.ABORT) == -signal.SIGINT
    assert "finally ran" in run.text


@pytest.mark.parametrize("text", [SAVES + WAITS, SWALLOWS + WAITS])
@pytest.mark.parametrize("reason", [StopReason.ABORT, StopReason.SIGNAL])
def test_a_program_in_a_shell_has_its_grace_period_though_the_shell_ends_at_once(
    text: str, reason: StopReason, tmp_path: Path
) -> None:
    grace = 60 if reason is StopReason.ABORT or text.startswith(SAVES) else 1.5
    run = Run(text, tmp_path, StopTimeouts(term=grace, interrupt=2.5), in_shell=True)
    assert run.end(reason) == -signal.SIGTERM
    is_let_end = text.startswith(SAVES) or reason is StopReason.ABORT
    assert ("finally ran" in run.text) is is_let_end
    assert "the shell goes on" not in run.text


def test_a_program_in_a_shell_may_save_though_the_schedulers_signal_reaches_the_agent_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_SIGNAL_LAG_S", HANG_S)  # a busy machine may be late by any time
    run = Run(SAVES + WAITS, tmp_path, StopTimeouts(term=60), in_shell=True)
    os.killpg(run.child.pid, signal.SIGTERM)
    wait_until("the shell's end", lambda: run.child.poll() is not None)
    late = threading.Timer(0.2, run.stop.request.request, [StopReason.SIGNAL])
    late.start()
    assert run.supervisor.run() == -signal.SIGTERM
    late.join()
    assert "saved\n" in run.text and "finally ran" in run.text


ENDS_WELL = "print('begun', flush=True)\n"


@pytest.mark.parametrize(
    ("announced", "state", "reason"),
    [
        (True, CurrentJob(JobState.COMPLETING, preempted=True), StopReason.SIGNAL),
        (True, CurrentJob(JobState.RUNNING), None),  # the line is of the job's start before
        (False, CurrentJob(JobState.COMPLETING, preempted=True), None),
        (None, CurrentJob(JobState.COMPLETING, preempted=True), None),
    ],
)
def test_a_program_that_ended_well_has_not_completed_where_its_job_is_being_ended(
    announced: bool | None, state: CurrentJob, reason: StopReason | None, tmp_path: Path
) -> None:
    run = Run(ENDS_WELL, tmp_path, StopTimeouts(term=60), job=EndingJob(announced, state))
    assert run.supervisor.run() == 0
    assert run.stop.request.reason is reason
    assert run.supervisor.ended_by_itself is (reason is None)


def test_an_end_waits_for_no_file_server_that_holds_the_jobs_output(tmp_path: Path) -> None:
    answers = threading.Event()
    job = EndingJob(None, waits=answers)
    try:
        run = Run(ENDS_WELL, tmp_path, StopTimeouts(term=60), job=job)
        assert run.supervisor.run() == 0
        assert run.stop.request.reason is None and job.asked
    finally:
        answers.set()


def test_a_signal_that_comes_late_counts_where_the_jobs_output_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_SIGNAL_LAG_S", HANG_S)
    run = Run(ENDS_WELL, tmp_path, StopTimeouts(term=60), job=EndingJob(None))
    late = threading.Timer(0.2, run.stop.request.request, [StopReason.SIGNAL])
    run.child.wait(HANG_S)
    late.start()
    assert run.supervisor.run() == 0
    assert run.stop.request.reason is StopReason.SIGNAL


def test_what_outlives_a_program_with_an_abort_callback_is_not_given_the_time_of_the_callback(tmp_path: Path) -> None:
    left = "import subprocess, sys\nsubprocess.Popen(['sleep', '600'])\nprint('begun', flush=True)\n"
    run = Run(left, tmp_path, StopTimeouts(term=60))
    run.stop.request.request(StopReason.ABORT, hold_until=SYSTEM.monotonic() + 2 * HANG_S)
    begun = SYSTEM.monotonic()
    assert run.supervisor.run() == 0
    assert SYSTEM.monotonic() - begun < HANG_S
    assert not run.child.has_left_processes()


def test_what_a_program_that_ended_by_itself_left_behind_is_killed_at_once(tmp_path: Path) -> None:
    left = "import subprocess, sys\nprint('begun', flush=True)\nsubprocess.Popen(['sleep', '600'])\n"
    run = Run(left, tmp_path, StopTimeouts(term=60))
    begun = SYSTEM.monotonic()
    assert run.supervisor.run() == 0
    assert SYSTEM.monotonic() - begun < 30
    assert not run.child.has_left_processes()
