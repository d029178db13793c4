"""A task in a pilot, from the inside: its gate, its job's variables, what it hears of its end, and its memory."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from manual_clock import ManualClock

from hpc_agent.domain.job import CurrentJob, JobState
from hpc_agent.domain.pilot_slots import Slot
from hpc_agent.domain.termination_cause import TerminationCause, termination_cause
from hpc_agent.process_id import ProcessId, process_id
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.pilots.allocation import PilotAllocation, RemainingTime, TimeLimits
from hpc_agent.schedulers.pilots.backend import BOARD, CLUSTER, CPUS, JOB, MEMORY, NODE, CurrentPilotTask
from hpc_agent.schedulers.pilots.board import PilotClaim, PilotTask, StopCause, StopRecord, TaskBoard
from hpc_agent.schedulers.pilots.gate import GATE, Grant, has_ended, make_gate, open_gate, report_end, wait_at_gate
from hpc_agent.schedulers.pilots.task_memory import memory_of, shared_memory_of

LIMIT_S = 300


def test_a_process_without_a_gate_goes_on_at_once() -> None:
    environ: dict[str, str] = {}
    assert wait_at_gate(environ)
    assert environ == {}


def test_an_open_gate_gives_the_gpus() -> None:
    ours, theirs = make_gate()
    assert open_gate(ours, Grant(["4", "5"]))
    environ = {GATE: str(theirs), "CUDA_VISIBLE_DEVICES": ""}
    assert wait_at_gate(environ)
    assert environ == {"CUDA_VISIBLE_DEVICES": "4,5"}
    assert not has_ended(ours)
    report_end()
    assert has_ended(ours) and not has_ended(ours)
    report_end()  # once is enough
    os.close(ours)


def test_a_gate_that_closes_says_that_the_task_is_not_ours() -> None:
    ours, theirs = make_gate()
    os.close(ours)
    assert not wait_at_gate({GATE: str(theirs)})


def test_opening_the_gate_of_an_agent_that_has_ended_is_noticed() -> None:
    ours, theirs = make_gate()
    os.close(theirs)
    assert not open_gate(ours, Grant())
    assert not has_ended(ours)
    os.close(ours)


def test_the_job_of_a_task_is_its_own_and_not_its_pilots() -> None:
    environ = {JOB: "p17", BOARD: "/b", CLUSTER: "c", CPUS: "2", MEMORY: "512", NODE: "n1"}
    found = backends.job_variables(environ)
    assert found is not None
    assert (found.job, found.cluster, found.cpus, found.memory_mb, found.node_name) == ("p17", "c", 2, 512, "n1")
    assert found.shares_control_group and found.restart_count == 0


@pytest.fixture
def board(tmp_path: Path) -> TaskBoard:
    return TaskBoard(tmp_path)


def current(board: TaskBoard, process: ProcessId | None, stop: StopCause | None) -> CurrentJob | None:
    clock = ManualClock()
    task = PilotTask("job", "q", "/s", "/", "/o", Slot(), LIMIT_S, clock.now())
    number = board.add(task)
    assert board.take(number, PilotClaim(clock.now() - timedelta(seconds=20), "7", process=process))
    if stop is not None:
        board.write_stop(number, StopRecord(clock.now(), stop))
    return CurrentPilotTask(board, f"p{number}", clock).look()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stop", "cause"),
    [
        (StopCause.PILOT, TerminationCause.PREEMPTED),
        (StopCause.TIME_LIMIT, TerminationCause.TIME_LIMIT),
        (StopCause.CANCELLED, TerminationCause.CANCELLED),
        (None, TerminationCause.EXTERNAL_SIGNAL),
    ],
)
def test_a_task_that_gets_term_learns_why(board: TaskBoard, stop: StopCause | None, cause: TerminationCause) -> None:
    assert termination_cause(current(board, process_id(os.getpid()), stop), 0) is cause


def test_a_task_whose_pilot_died_takes_that_for_the_cause(board: TaskBoard) -> None:
    own = process_id(os.getpid())
    assert own is not None
    gone = msgspec.structs.replace(own, pid=2**22 + 1)
    assert termination_cause(current(board, gone, None), 0) is TerminationCause.NODE_FAILED


def test_a_task_knows_how_much_time_it_has_left(board: TaskBoard) -> None:
    found = current(board, process_id(os.getpid()), StopCause.CANCELLED)
    assert found is not None
    assert (found.ran_for, found.left) == (20, LIMIT_S - 20)


def stat(folder: Path, pid: int, parent: int, pages: int, name: str = "python") -> None:
    (folder / str(pid)).mkdir()
    (folder / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} {' '.join(['0'] * 19)} {pages} 0 0\n")


def test_memory_is_that_of_a_process_and_all_below_it(tmp_path: Path) -> None:
    stat(tmp_path, 1, 0, 1000)
    stat(tmp_path, 10, 1, 5)
    stat(tmp_path, 11, 10, 7, "odd) S 1 (name")
    stat(tmp_path, 12, 11, 1)
    stat(tmp_path, 20, 1, 100)
    page = os.sysconf("SC_PAGE_SIZE")
    assert memory_of([10, 20], tmp_path) == {10: 13 * page, 20: 100 * page}


def test_pages_that_processes_share_count_once_where_the_kernel_tells(tmp_path: Path) -> None:
    stat(tmp_path, 10, 1, 100)
    stat(tmp_path, 11, 10, 100)
    (tmp_path / "11" / "smaps_rollup").write_text("00-ff ---p 00000000 00:00 0 [rollup]\nRss: 400 kB\nPss:   3 kB\n")
    assert shared_memory_of(10, tmp_path) == 100 * os.sysconf("SC_PAGE_SIZE") + 3 * 1024


def test_an_allocation_gives_each_task_gpus_and_cpus_of_its_own() -> None:
    allocation = PilotAllocation(Slot(4, 100), ["a", "b"], [0, 1, 2, 3])
    one, two = allocation.grant(Slot(2, 50, 1)), allocation.grant(Slot(1, 50, 1))
    assert (one.gpus, one.cpus, two.gpus, two.cpus) == (["a"], [0, 1], ["b"], [2])
    assert allocation.free == Slot(1, 0, 0)
    allocation.take_back(Slot(2, 50, 1), one)
    assert allocation.grant(Slot(3, 50, 1)).cpus == [3, 0, 1]


def test_where_the_job_is_not_bound_to_its_cpus_no_task_is() -> None:
    assert PilotAllocation(Slot(2), [], range(64)).grant(Slot(1)).cpus == []


def test_the_time_that_is_left_is_asked_again_before_a_pilot_is_full() -> None:
    clock, answers = ManualClock(), [CurrentJob(JobState.RUNNING, ran_for=0, time_limit=200)]
    remaining = RemainingTime(lambda: answers[-1], TimeLimits(1000, 40, 60), clock)
    assert remaining.seconds() == 160
    assert not remaining.is_over()
    clock.advance(110)
    answers.append(CurrentJob(JobState.RUNNING, ran_for=110, time_limit=600))  # it was extended
    assert not remaining.is_over()
    assert remaining.seconds() == 450


def test_without_an_answer_the_time_limit_of_the_submission_counts() -> None:
    clock = ManualClock()
    remaining = RemainingTime(lambda: None, TimeLimits(600, 40, 60), clock)
    assert remaining.seconds() == 500
    clock.advance(441)
    assert remaining.is_over()
