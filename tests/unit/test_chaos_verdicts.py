"""The judge of the chaos run: what it lets pass, and what it calls lost, run twice, wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from faults.chaos import Result
from faults.chaos_evidence import Evidence, TaskRecord
from faults.chaos_faults import KINDS, plan
from faults.chaos_judge import Hit, Seen, Story, Wrong, confirmed, ended_by_late_requests, ended_by_slurm
from faults.chaos_ledger import Job, Start, read, read_ranks, starts_of_all
from faults.kept import run_in_folder

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
    starts[1].still_alive = [10]
    assert kinds(Story("t", JOB, starts, seen("completed", "", 0, 1, 1000, 1001), [REQUEUE])) == [Wrong.TWICE]


@pytest.mark.parametrize(("lines", "words"), [((0,), "missing"), ((0, 1, 1), "doubled"), ((1, 0), "is after")])
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


def test_what_was_printed_just_before_a_node_died_may_be_lost() -> None:
    dead = Hit("node dead", 7.1, 7.2, frozenset({"t"}), node="n1", kills_writers=True)
    first = Start(10, 0, "7", "n1", lines=[0, 1, 2], printed_at=[0, 1, 7], last_at=7)
    starts = [first, start(20, ended=22, number=1)]
    assert kinds(Story("t", JOB, starts, seen("completed", "", 0, 1, 1000, 1001), [dead])) == []
    assert kinds(Story("t", JOB, starts, seen("completed", "", 0, 2, 1000, 1001), [dead])) == [Wrong.LOST]


def test_a_task_without_an_end_is_lost_unless_it_is_in_a_queue() -> None:
    assert kinds(Story("t", JOB, [start()], seen("in_progress"))) == [Wrong.LOST]
    assert kinds(Story("t", JOB, [start()], seen("queued", in_queue=True))) == []


def test_the_verdict_is_the_exit_code_or_what_was_done_to_it() -> None:
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


def test_cancelled_while_slurmctld_is_away_the_signal_comes_when_it_is_back() -> None:
    away = Hit("slurmctld away", 1.0, 20.0, away="slurmctld")
    ended = seen("completed")
    assert kinds(Story("t", JOB, [start(ended=25)], ended, [CANCEL])) == [Wrong.VERDICT]
    assert kinds(Story("t", JOB, [start(ended=25)], ended, [CANCEL, away])) == []
    assert kinds(Story("t", JOB, [start(ended=31)], ended, [CANCEL, away])) == [Wrong.VERDICT]


def test_cancelled_on_a_node_without_slurmd_the_signal_waits_for_it() -> None:
    ended = seen("completed")
    here, elsewhere = (Hit("no slurmd", 1.0, 20.0, away=node) for node in ("n1", "n2"))
    assert kinds(Story("t", JOB, [start(ended=25)], ended, [CANCEL, here])) == []
    assert kinds(Story("t", JOB, [start(ended=25)], ended, [CANCEL, elsewhere])) == [Wrong.VERDICT]


def test_a_scancel_that_slurmctld_noted_late_counts_from_then() -> None:
    slow = Hit("cancelled by hand", 2.0, 14.0, frozenset({"t"}), job="7", cancels=True)
    assert kinds(Story("t", JOB, [start(ended=13)], seen("completed"), [slow])) == []


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ("7|CANCELLED by 0|4\n", [Wrong.VERDICT]),
        ("7|COMPLETED|2\n", []),
        ("7|NODE_FAIL|2\n8|CANCELLED by 0|9\n", []),
        ("", [Wrong.VERDICT]),  # there is no accounting
    ],
)
def test_a_scancel_that_came_too_late_for_its_job_decides_nothing(table: str, wrong: list[Wrong]) -> None:
    hits = confirmed([CANCEL, NODE], table)
    assert hits[1] == NODE
    assert kinds(Story("t", JOB, [start(ended=13)], seen("completed"), hits)) == wrong
    stopped = seen("stopped", "Slurm job 7 was cancelled by root")
    assert kinds(Story("t", JOB, [start()], stopped, hits)) == []


def test_what_was_started_after_its_task_was_cancelled_is_wrong_even_if_it_ends() -> None:
    other = Hit("cancelled by hand", 2.0, 2.1, frozenset({"t"}), job="6", cancels=True)
    assert kinds(Story("t", JOB, [start(1.0, ended=4)], seen("completed"), [other])) == []
    assert kinds(Story("t", JOB, [start(3.0, ended=6)], seen("completed"), [other])) == [Wrong.VERDICT]


def test_a_start_that_slurm_ended_by_itself_may_be_followed_by_another() -> None:
    starts = [start(100), start(120, ended=122, number=1)]
    server = seen("completed", "", 0, 1, 1000, 1001)
    table = "7|NODE_FAIL|103\n7|COMPLETED|122\n8|REQUEUED|103\n9|CANCELLED by 0|103\n10|RUNNING|Unknown\n"
    hits = ended_by_slurm(table)
    assert [(hit.job, hit.kind, hit.ghosts) for hit in hits] == [
        ("7", "Slurm: NODE_FAIL", True),
        ("8", "Slurm: REQUEUED", False),
    ]
    assert kinds(Story("t", JOB, starts, server, hits)) == []
    assert kinds(Story("t", JOB, starts, server, hits[1:])) == [Wrong.TWICE]
    # The record of an earlier start of the job excuses no later one.
    assert kinds(Story("t", JOB, starts, server, ended_by_slurm("7|NODE_FAIL|90\n"))) == [Wrong.TWICE]


SLURMD_LOG = """\
[2026-11-27T20:45:39.105] launch task StepId=7.1 request from UID:0 GID:0 HOST:127.0.0.1 PORT:50098
[2026-11-27T20:45:39.841] [7.1] get_exit_code task 0 died by signal: 15
[2026-11-27T20:45:48.373] slurmd version 22.05.8 started
[2026-11-27T20:46:41.156] launch task StepId=7.0 request from UID:0 GID:0 HOST:127.0.0.1 PORT:38386
[2026-11-27T20:46:43.302] launch task StepId=7.1 request from UID:0 GID:0 HOST:127.0.0.1 PORT:34626
[2026-11-27T20:46:46.224] [7.1] error: *** STEP 7.1 ON n1 CANCELLED AT 2026-11-27T20:46:46 ***
[2026-11-27T20:46:46.375] [7.0] get_exit_code task 0 died by signal: 15
"""


def test_a_start_that_got_a_request_for_an_earlier_one_may_be_followed_by_another() -> None:
    [late] = ended_by_late_requests(SLURMD_LOG, [REQUEUE])
    assert (late.job, late.since) == ("7", datetime.fromisoformat("2026-11-27T20:46:46.224").timestamp())
    at = late.since
    starts = [start(at - 2), start(at + 20, ended=at + 22, number=1)]
    server = seen("completed", "", 0, 1, 1000, 1001)
    assert kinds(Story("t", JOB, starts, server, [late])) == []
    assert kinds(Story("t", JOB, starts, server, [])) == [Wrong.TWICE]
    rank = Hit("rank killed", at - 1, at - 1, frozenset({"t"}), job="7", kills_rank=True)
    assert ended_by_late_requests(SLURMD_LOG, [rank]) == []


def test_the_judge_finds_the_same_in_what_a_run_has_left(tmp_path: Path) -> None:
    (tmp_path / "ledgers").mkdir()
    for name in ("right", "wrong"):
        ledger = tmp_path / "ledgers" / name
        script = Job(lines=2, pause=0, code=0, queue="again", partition="main").script(ledger)
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    tasks = [
        TaskRecord("t", "ledgers/right", JOB, Seen("completed", "", [0, 1])),
        TaskRecord("u", "ledgers/wrong", JOB, Seen("stopped", "Slurm job 7 was cancelled by root", [0, 0])),
    ]
    evidence = Evidence("hpc-agent", 5, tasks, [REQUEUE, NODE], ["preempted"], [], 1, 12.0)
    evidence.save(tmp_path)
    assert vars(Evidence.load(tmp_path)) == vars(evidence)
    result = Result(tmp_path)
    assert [(story.task, kind) for story, kind, _ in result.wrong()] == [
        ("u", Wrong.LOST),
        ("u", Wrong.LOST),
        ("u", Wrong.VERDICT),
    ]
    assert not result.is_right
    assert result.figures()["faults made"] == 2


def test_only_a_run_that_failed_leaves_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    worked_in: list[Path] = []

    def run(folder: Path, code: int) -> int:
        worked_in.append(folder)
        (folder / "evidence.json").touch()
        return code

    def broken(folder: Path) -> int:
        worked_in.append(folder)
        raise RuntimeError

    assert run_in_folder("chaos", "seed1", None, lambda folder: run(folder, 0)) == 0
    assert run_in_folder("chaos", "seed1", None, lambda folder: run(folder, 4)) == 4
    assert capsys.readouterr().out == ""
    assert run_in_folder("chaos", "seed1", None, lambda folder: run(folder, 1)) == 1
    assert f"scripts/chaos --replay {worked_in[2]}" in capsys.readouterr().out
    with pytest.raises(RuntimeError):
        run_in_folder("chaos", "seed1", None, broken)
    assert f"The evidence is left in {worked_in[3]}\n" in capsys.readouterr().out
    assert [folder.exists() for folder in worked_in] == [False, False, True, True]


def test_a_failed_node_is_a_verdict_only_where_no_other_start_is_allowed() -> None:
    failed = seen("failed", "node n1 failed after 00:00:02 (Slurm job 7); enqueue the task again")
    assert kinds(Story("t", ONCE, [start()], failed, [NODE])) == []
    assert kinds(Story("t", JOB, [start()], failed, [NODE])) == [Wrong.VERDICT]
    assert kinds(Story("t", ONCE, [start()], failed)) == [Wrong.VERDICT]
    unstarted = replace(failed, lines=[])
    by_slurm = Hit("Slurm: NODE_FAIL", 2.0, 3.0, job="7")
    assert kinds(Story("t", ONCE, [], unstarted, [by_slurm])) == []
    assert kinds(Story("t", ONCE, [], unstarted, [replace(by_slurm, job="17")])) == [Wrong.VERDICT]


def test_a_task_writes_its_ledger_and_the_judge_reads_it(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    script = Job(lines=3, pause=0, code=3, queue="again", partition="main").script(ledger)
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 3
    first, second = read(ledger)
    assert (first.lines, second.lines) == ([0, 1, 2], [1000, 1001, 1002])
    assert (first.code, second.code, second.still_alive) == (3, 3, [])
    ledger.write_text("100.5 77 signal 15\n")
    assert read(ledger) == []


# ---------------------------------------------------------------- many nodes

TWO = replace(JOB, nodes=2)


def rank_starts(rank: int, *, ended: float | None = None, number: int = 0, code: int = 0) -> Start:
    begun = start(20.0 * number, ended=ended, number=number, code=code)
    return replace(begun, node=f"n{rank + 1}", restart=str(number))


def two_ranks(ranks: Sequence[Sequence[Start]], server: Seen, *hits: Hit) -> list[Wrong]:
    return kinds(Story("t", TWO, starts_of_all(ranks), server, hits, ranks))


def test_each_rank_has_a_ledger_and_they_are_one_start(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    script = Job(lines=2, pause=0, code=0, queue="again", partition="main", nodes=2).script(ledger)
    for rank in range(2):
        environ = {**os.environ, "RANK": str(rank), "SLURM_JOB_ID": "7", "SLURMD_NODENAME": f"n{rank + 1}"}
        subprocess.run([sys.executable, "-c", script], env=environ, check=True)
    ranks = read_ranks(ledger, 2)
    [together] = starts_of_all(ranks)
    assert (together.nodes, together.code, together.lines) == (["n1", "n2"], 0, [0, 1])
    assert [starts[0].lines for starts in ranks] == [[0, 1], [0, 1]]


def test_no_line_of_any_rank_may_be_lost() -> None:
    ranks = [[rank_starts(0, ended=2)], [rank_starts(1, ended=2)]]
    assert two_ranks(ranks, Seen("completed", "", [0, 1], other_ranks=[[0, 1]])) == []
    assert two_ranks(ranks, Seen("completed", "", [0, 1], other_ranks=[[1]])) == [Wrong.LOST]
    assert two_ranks(ranks, Seen("completed", "", [0, 1], other_ranks=[[0, 0, 1]])) == [Wrong.LOST]


def test_ranks_start_again_together_after_the_death_of_any_of_their_nodes() -> None:
    """Rank 0 may have come to its end before the node of rank 1 died."""
    again = [rank_starts(0, ended=22, number=1)], [rank_starts(1, ended=22, number=1)]
    ranks = [[rank_starts(0, ended=2), *again[0]], [rank_starts(1), *again[1]]]
    server = Seen("completed", "", [0, 1, 1000, 1001], other_ranks=[[0, 1, 1000, 1001]])
    assert two_ranks(ranks, server) == [Wrong.TWICE]
    assert two_ranks(ranks, server, replace(NODE, node="n2")) == []
    assert two_ranks(ranks, server, replace(NODE, node="n3")) == [Wrong.TWICE]


def test_ranks_start_again_where_one_could_not_be_launched() -> None:
    """The others may have come to their end by then."""
    again = [rank_starts(0, ended=22, number=1)], [rank_starts(1, ended=22, number=1)]
    missing = [[rank_starts(0, ended=2), *again[0]], [replace(again[1][0], lines=[0, 1])]]
    complete = [[rank_starts(0), *again[0]], [rank_starts(1), *again[1]]]
    server = Seen("completed", "", [0, 1, 1000, 1001], other_ranks=[[0, 1]])
    away = Hit("slurmd away for a moment", -1.0, 5.0, frozenset({"t"}), away="n2")
    assert two_ranks(missing, server) == [Wrong.TWICE]
    assert two_ranks(missing, server, away) == []
    assert two_ranks(missing, server, replace(away, away="n1")) == [Wrong.TWICE]
    assert two_ranks(missing, server, replace(away, since=3.0)) == [Wrong.TWICE]
    whole = replace(server, other_ranks=[[0, 1, 1000, 1001]])
    assert two_ranks(complete, whole, away) == [Wrong.TWICE]


@pytest.mark.parametrize("why", ["Slurm could not start the ranks on n2: x", "(without n2), before the agent started"])
def test_a_queue_without_restarts_may_fail_a_task_that_was_not_launched(why: str) -> None:
    once = replace(TWO, queue="once")
    away = Hit("slurmd away for a moment", -1.0, 5.0, frozenset({"t"}), away="n2")
    ranks = [[rank_starts(0)], []]
    server = Seen("failed", why, [0, 1], other_ranks=[[]])
    starts = starts_of_all(ranks)
    assert kinds(Story("t", once, starts, server, [away], ranks)) == []
    assert kinds(Story("t", once, starts, server, [], ranks)) == [Wrong.VERDICT]
    assert kinds(Story("t", TWO, starts, server, [away], ranks)) == [Wrong.VERDICT]


def test_a_killed_rank_fails_the_task_and_nothing_starts_again() -> None:
    killed = Hit("rank killed", 2.0, 2.1, frozenset({"t"}), job="7", kills_rank=True)
    ranks = [[rank_starts(0)], [rank_starts(1)]]
    failed = "worker execution was ended by SIGKILL: rank 1 on n2: killed by SIGKILL"
    assert two_ranks(ranks, Seen("failed", failed, [0, 1], other_ranks=[[0, 1]]), killed) == []
    assert two_ranks(ranks, Seen("failed", failed, [0, 1], other_ranks=[[0, 1]])) == [Wrong.VERDICT]
    assert two_ranks(ranks, Seen("completed", "", [0, 1], other_ranks=[[0, 1]]), killed) == [Wrong.VERDICT]
    twice = [[*starts, rank_starts(rank, ended=22, number=1)] for rank, starts in enumerate(ranks)]
    lines = [0, 1, 1000, 1001]
    assert two_ranks(twice, Seen("completed", "", lines, other_ranks=[lines]), killed) == [Wrong.TWICE]


def test_a_rank_that_fails_ends_the_others() -> None:
    ranks = [[rank_starts(0)], [rank_starts(1, ended=2, code=3)]]
    reason = "worker execution exit code 3: rank 1 on n2: line 1"
    assert two_ranks(ranks, Seen("failed", reason, [0, 1], other_ranks=[[0, 1]])) == []
    assert two_ranks(ranks, Seen("failed", "worker execution exit code 3", [0, 1], other_ranks=[[0, 1]])) == [
        Wrong.VERDICT
    ]


def test_a_seed_chooses_the_same_faults_and_each_kind_comes() -> None:
    every = list(KINDS)
    assert plan(30, 1, every) == plan(30, 1, every) != plan(30, 2, every)
    assert {fault.kind for fault in plan(len(KINDS), 5, every)} == set(KINDS)
