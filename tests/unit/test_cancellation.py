"""Cancellation of a preparation: at a wait, once, and never out of a signal handler."""

from __future__ import annotations

import ast
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from manual_clock import ManualClock
from waiting import wait_until

from hpc_agent.cancellation import CancellableClock, Cancelled, cancelled_when
from hpc_agent.clock import SYSTEM
from hpc_agent.errors import ProcessError
from hpc_agent.executor import stop_conditions
from hpc_agent.executor.stop_conditions import StopConditions, StopReason, StopRequest, handled_signals
from hpc_agent.process import programs
from hpc_agent.schedulers.base import NullCurrentJob


def cancelled(stop: StopRequest, work: Callable[[], object]) -> None:
    """``work``, which a stop request ends a moment after it began."""
    timer = threading.Timer(0.3, lambda: stop.request(StopReason.ABORT))
    timer.start()
    try:
        with pytest.raises(Cancelled):
            stop.run_cancellable(work, "test")
    finally:
        timer.join()


def _sleeps(pid: int) -> bool:
    """On a busy machine its number may be another process's by now, and in a subreaper it may be a zombie."""
    try:
        found = psutil.Process(pid)
        return found.name() == "sleep" and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_program_is_killed_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 300 & echo $! >{pid_file}.new; mv {pid_file}.new {pid_file}; wait"
    cancelled(StopRequest(), lambda: programs.run(["sh", "-c", script], timeout=200))
    pid = int(pid_file.read_text(encoding="utf-8"))
    wait_until("the child to end", lambda: _sleeps(pid), lambda sleeps: not sleeps)


def test_finally_of_cancelled_work_runs_to_its_end() -> None:
    steps: list[str] = []

    def work() -> None:
        try:
            programs.run(["sleep", "300"], timeout=200)
        finally:
            steps.append("clean-up began")
            steps.append(programs.run(["echo", "removed"], timeout=60).stdout.strip())

    cancelled(StopRequest(), work)
    assert steps == ["clean-up began", "removed"]


def test_handler_of_errors_does_not_take_a_cancellation_for_a_failure() -> None:
    def work() -> str:
        try:
            return programs.run(["sleep", "300"], timeout=200).stdout
        except Exception:  # noqa: BLE001 - as code does that can do without
            return "went on without"

    cancelled(StopRequest(), work)


def test_pause_between_two_tries_ends() -> None:
    cancelled(StopRequest(), lambda: CancellableClock(SYSTEM).sleep(300))


def test_work_that_looks_for_no_request_is_left_behind() -> None:
    held, stop = threading.Event(), StopRequest()

    def work() -> None:
        stop.request(StopReason.ABORT)
        held.wait()

    try:
        with pytest.raises(Cancelled):
            stop.run_cancellable(work, "test", clean_up_s=0.5)
    finally:
        held.set()


def test_work_that_failed_by_the_same_signal_is_cancelled() -> None:
    """Slurm signals all processes of a job: a git that SIGTERM ended is not an error of the task's source."""
    stop = StopRequest()

    def work() -> None:
        stop.request(StopReason.SIGNAL)
        raise ProcessError("git failed")

    with pytest.raises(Cancelled):
        stop.run_cancellable(work, "test")


def test_work_is_not_begun_after_a_request() -> None:
    stop, begun = StopRequest(), list[bool]()
    stop.request(StopReason.INTERRUPT)
    with pytest.raises(Cancelled):
        stop.run_cancellable(lambda: begun.append(True), "test")
    assert begun == []


def test_work_without_a_request_returns_and_raises_its_own() -> None:
    assert StopRequest().run_cancellable(lambda: 7, "test") == 7
    with pytest.raises(ProcessError, match="away"):
        StopRequest().run_cancellable(lambda: programs.run(["away"], timeout=5), "test")


def test_pause_of_the_run_itself_ends() -> None:
    stop, clock = StopRequest(), ManualClock()
    stop.sleep(6, clock)
    assert clock.seconds == pytest.approx(6)
    clock.at(8, lambda: stop.request(StopReason.ABORT))
    with pytest.raises(Cancelled):
        stop.sleep(6, clock)
    assert clock.seconds < 9


def test_long_program_keeps_its_timeout_where_it_can_be_cancelled() -> None:
    with cancelled_when(lambda: False):
        with pytest.raises(ProcessError, match=r"gave no answer within 0\.5 s"):
            programs.run(["sleep", "300"], timeout=0.5)
        assert (
            programs.run(["sh", "-c", "cat; sleep 0.5; echo late"], timeout=60, input="text\n").stdout == "text\nlate\n"
        )


def test_large_input_reaches_a_program_that_is_slow_to_read() -> None:
    text = "x" * 1_000_000
    with cancelled_when(lambda: False):
        assert programs.run(["sh", "-c", "sleep 0.5; wc -c"], timeout=60, input=text).stdout.strip() == "1000000"


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGTERM, StopReason.SIGNAL), (signal.SIGINT, StopReason.INTERRUPT)]
)
def test_signal_sets_flags(number: signal.Signals, reason: StopReason) -> None:
    stop = StopConditions(NullCurrentJob(), 0, 30, SYSTEM)
    with handled_signals(stop.request, stop.deadline):
        os.kill(os.getpid(), number)
        wait_until("the handler to run", lambda: stop.reason)
        assert stop.reason is reason
        assert stop.request.sigterm_received is (number is signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until("the handler to run", lambda: stop.deadline.warned)


def test_no_signal_handler_of_the_executor_raises_or_waits() -> None:
    """Each statement of a handler is a flag that is set, or a call of ``request``, which sets flags."""
    tree = ast.parse(Path(stop_conditions.__file__).read_text(encoding="utf-8"))
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "on_signal"]
    assert len(handlers) == 1
    calls = [node.func for node in ast.walk(handlers[0]) if isinstance(node, ast.Call)]
    assert [call.attr for call in calls if isinstance(call, ast.Attribute)] == ["request"] * len(calls)
    assert not [node for node in ast.walk(handlers[0]) if isinstance(node, (ast.Raise, ast.With))]
