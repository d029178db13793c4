"""The judge of the chaos run: what it lets pass, and what it calls lost, run twice, wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from faults.chaos_faults import KINDS, plan
from faults.chaos_judge import Hit, Seen, Story, Wrong
from faults.chaos_ledger import Job, Start, read

JOB = Job(lines=2, pause=1.0, code=0, queue="again", partition="main")
ONCE = Job(lines=2, pause=1.0, code=0, queue="once", partition="main")


def start(at: float = 0.0, *, ended: float | None = None, code: int = 0, number: int = 0) -> Start:
    lines = [1000 * number, 1000 * number + 1]
    ends = None if ended is None else code
    return Start(
        10 + number, at, "7", "n1", lines=lines, printed_at=[at, at + 2], last_at=at + 2, ended_at=ended, code=ends
    )


def seen(status: str = "completed", reason: str = "", *lines: int, in_queue: bool = False) -> Seen:
    return Seen(status, reason, lines or (0, 1), in_queue)


def kinds(story: Story) -> list[Wrong]:
    return [kind for kind, _ in story.wrong()]


REQUEUE = Hit("requeued", 2.0, 2.1, frozenset({"t"}), job="7")
NODE = Hit("node dead", 2.0, 2.5, frozenset({"t"}), node="n1")
CANCEL = Hit("cancelled by hand", 2.0, 2.1, frozenset({"t"}), job="7", cancels=True)


def test_a_task_that_ran_once_to_its_end_is_right() -> None:
    assert Story("t", JOB, [start(ended=2)], seen()).wrong() == []


def test_a_second_start_needs_a_fault_that_ended_the_first() -> None:
    starts = [start(), start(20, ended=22, number=1)]
    server = seen("completed", "", 0, 1, 1000, 1001)
    assert kinds(Story("t", JOB, starts, server)) == [Wrong.TWICE]
    assert kinds(Story("t", JOB, starts, server, [CANCEL])) == [Wrong.TWICE, Wrong.VERDICT]
    assert kinds(Story("t", JOB, starts, server, [REQUEUE])) == []
    assert kinds(Story("t", JOB, starts, server, [NODE])) == []


def test_a_start_after_an_end_is_twice_unless_the_node_went_down_with_it() -> None:
    starts = [start(ended=2.5), start(20, ended=22, number=1)]
    server = seen("completed", "", 0, 1, 1000, 1001)
    late = Hit("node dead", 9.0, 9.5, frozenset({"t"}), node="n1")
    assert kinds(Story("t", JOB, starts, server, [late])) == [Wrong.TWICE]
    story = Story("t", JOB, starts, server, [NODE])
    assert (kinds(story), story.cut_at_its_end) == ([], 1)


def test_two_at_once_are_twice_whatever_happened() -> None:
    starts = [start(), start(3, ended=5, number=1)]
    starts[1].beside = [10]
    assert kinds(Story("t", JOB, starts, seen("completed", "", 0, 1, 1000, 1001), [REQUEUE])) == [Wrong.TWICE]


@pytest.mark.parametrize(("lines", "words"), [((0,), "missing"), ((0, 1, 1), "doubled"), ((1, 0), "stands after")])
def test_lines_that_miss_come_twice_or_out_of_order_are_lost(lines: tuple[int, ...], words: str) -> None:
    [(kind, text)] = Story("t", JOB, [start(ended=2)], seen("completed", "", *lines)).wrong()
    assert kind is Wrong.LOST
    assert words in text


def test_what_a_process_prints_after_its_task_was_taken_from_it_is_nobodys() -> None:
    ghost = Hit("node dead to Slurm", 1.0, 8.0, frozenset({"t"}), node="n1", ghosts=True)
    first = Start(10, 0, "7", "n1", lines=[0, 1, 2], printed_at=[0, 1, 7], last_at=7)
    starts = [first, start(20, ended=22, number=1)]
    assert kinds(Story("t", JOB, starts, seen("completed", "", 0, 1, 1000, 1001), [ghost])) == []
    assert kinds(Story("t", JOB, starts, seen("completed", "", 0, 2, 1000, 1001), [ghost])) == [Wrong.LOST]


def test_a_task_without_an_end_is_lost_unless_it_is_in_a_queue() -> None:
    assert kinds(Story("t", JOB, [start()], seen("in_progress"))) == [Wrong.LOST]
    assert kinds(Story("t", JOB, [start()], seen("queued", in_queue=True))) == []


def test_the_verdict_is_the_exit_code_or_what_somebody_did() -> None:
    failed = seen("failed", "worker execution exit code 3")
    assert kinds(Story("t", JOB, [start(ended=2)], failed)) == [Wrong.VERDICT]
    assert kinds(Story("t", JOB, [start(ended=2, code=3)], failed)) == []
    stopped = seen("stopped", "Slurm job 7 was cancelled by root")
    assert kinds(Story("t", JOB, [start()], stopped)) == [Wrong.VERDICT]
    assert kinds(Story("t", JOB, [start()], stopped, [CANCEL])) == []
    assert kinds(Story("t", JOB, [start(ended=2)], seen("completed"), [CANCEL])) == []
    late = [start(ended=9)]  # it ended by itself while the signal was on its way
    assert kinds(Story("t", JOB, late, seen("completed"), [CANCEL])) == []
    assert kinds(Story("t", JOB, [start(ended=13)], seen("completed"), [CANCEL])) == [Wrong.VERDICT]


def test_a_failed_node_is_a_verdict_only_where_no_other_start_is_allowed() -> None:
    failed = seen("failed", "node n1 failed after 00:00:02 (Slurm job 7); enqueue the task again")
    assert kinds(Story("t", ONCE, [start()], failed, [NODE])) == []
    assert kinds(Story("t", JOB, [start()], failed, [NODE])) == [Wrong.VERDICT]
    assert kinds(Story("t", ONCE, [start()], failed)) == [Wrong.VERDICT]


def test_a_task_writes_its_ledger_and_the_judge_reads_it(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    script = Job(lines=3, pause=0, code=3, queue="again", partition="main").script(ledger)
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 3
    first, second = read(ledger)
    assert (first.lines, second.lines) == ([0, 1, 2], [1000, 1001, 1002])
    assert (first.code, second.code, second.beside) == (3, 3, [])


def test_a_seed_chooses_the_same_faults_and_each_kind_comes() -> None:
    assert plan(30, 1) == plan(30, 1) != plan(30, 2)
    assert {fault.kind for fault in plan(len(KINDS), 5)} == set(KINDS)
