"""The judge of the crash enumeration: what it lets pass, what it calls wrong, and what it says of kept evidence."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from faults.crash_judge import Findings, Point, Result
from faults.crash_point import SUPERVISOR
from faults.crashes import Passage, boundaries, each, sample

LINES = ["line 0", "line 1"]
RUN = Path(__file__).parents[2] / "scripts" / "crashes_run.py"
COMMANDS = ("daemon", "execute", SUPERVISOR)
DAEMON, EXECUTE, SUPERVISED = (Point(command, "rename claim.json", 1, "after") for command in COMMANDS)
RIGHT = Result(
    name="run-1",
    variant="success",
    point=DAEMON,
    reached=True,
    passed=1,
    stuck=False,
    aborted=False,
    status="completed",
    reason="",
    seconds=3.0,
    started=1,
    finals=1,
    on_disk=LINES,
    on_server=LINES,
)
DEAD = replace(RIGHT, point=EXECUTE, status="failed", reason="the agent left no report")


@pytest.mark.parametrize(
    ("result", "wrong"),
    [
        (RIGHT, ""),
        (replace(RIGHT, stuck=True), "stuck"),
        (replace(RIGHT, started=2), "started 2 times"),
        (replace(RIGHT, started=0), "started 0 times"),
        (replace(RIGHT, finals=2), "2 final statuses"),
        (replace(RIGHT, on_server=LINES[:1]), "lines lost or out of order"),
        (replace(RIGHT, on_server=LINES[::-1]), "lines lost or out of order"),
        (replace(RIGHT, on_server=[*LINES, LINES[1]]), "lines lost or out of order"),
        (replace(RIGHT, status="failed", reason="exit code 3"), "status failed (exit code 3), expected completed"),
        (replace(RIGHT, variant="failure", status="failed"), ""),
        (replace(RIGHT, variant="failure"), "status completed (), expected failed"),
        # Only the process that had the task's process takes it along.
        (DEAD, ""),
        (replace(DEAD, started=0), ""),
        (replace(DEAD, point=SUPERVISED), ""),
        (replace(DEAD, point=DAEMON), "status failed (the agent left no report), expected completed"),
        (replace(DEAD, reason="exit code 1"), "status failed (exit code 1), expected completed"),
        (replace(DEAD, variant="abort", aborted=True), "status failed (the agent left no report), expected stopped"),
        (replace(DEAD, variant="abort"), ""),
    ],
)
def test_a_run_is_right_or_it_is_said_what_is_wrong(result: Result, wrong: str) -> None:
    assert result.wrong == wrong


def test_a_sample_in_which_a_part_was_never_hit_is_not_good_enough() -> None:
    missed = replace(RIGHT, reached=False)
    hit, tried_again, never = [RIGHT], [missed, RIGHT], [missed, missed]
    assert unmet(Findings(9, [hit, tried_again], every=False)) == []
    assert unmet(Findings(9, [hit, never], every=False)) == ["crash enumeration: parts without a crash"]
    assert Findings(9, [hit, never], every=True).figures()["parts without a crash"] == 1


def test_a_boundary_that_was_not_reached_needs_a_reason() -> None:
    """It has one where its door was passed less often, and processes were killed at the passages that came by."""
    third = replace(DAEMON, nth=3)
    missed = replace(RIGHT, point=third, reached=False, passed=2)
    found = Findings(2, [[RIGHT], [missed] * 3], every=True)
    [boundary] = found.unreached
    assert boundary.point == third
    assert boundary.reason == "passed 2 times at most in 1 runs; killed there up to passage 1"
    assert unmet(found) == []
    another_door = replace(RIGHT, point=replace(DAEMON, door="call tasks.started"))
    passed_and_not_killed = replace(missed, passed=3)
    for parts in ([[missed]], [[another_door], [missed]], [[RIGHT], [passed_and_not_killed]]):
        assert unmet(Findings(2, parts, every=True)) == ["crash enumeration: without a verdict"]


def test_what_comes_at_the_pace_of_a_clock_may_come_after_another_door() -> None:
    label = "call queues.get_all since rename submit.json"
    killed = replace(RIGHT, point=replace(DAEMON, door=f"{label} (1)"))
    missed = replace(RIGHT, point=replace(DAEMON, door=f"{label} (2)"), reached=False, passed=0)
    found = Findings(2, [[killed], [missed]], every=True)
    assert "did not come between rename submit.json (2) and the next door" in found.unreached[0].reason
    assert unmet(found) == []
    for parts in ([[missed]], [[killed], [replace(missed, passed=1)]]):
        assert unmet(Findings(2, parts, every=True)) == ["crash enumeration: without a verdict"]


def test_tasks_of_one_run_are_judged_each(tmp_path: Path) -> None:
    found = Findings(1, [[RIGHT, replace(RIGHT, started=2)]], every=True)
    assert found.figures()["crashes"] == 1
    assert found.figures()["run twice"] == 1


def unmet(findings: Findings) -> list[str]:
    return [goal["name"] for goal in findings.figures()["goals"] if not goal["met"]]


def test_a_sample_takes_its_points_from_each_part_of_all() -> None:
    found = [("success", Point("daemon", f"door {number}", 1, "after")) for number in range(100)]
    parts = sample(found, 10, seed=4)
    assert [{found.index(item) // 10 for item in part} for part in parts] == [{number} for number in range(10)]
    assert parts == sample(found, 10, seed=4) != sample(found, 10, seed=5)
    assert [part[0] for part in each(found)] == found
    assert [item for [item] in sample(found, 500, seed=4)] == found


def test_each_boundary_is_counted_once() -> None:
    """After a door is before the next one of its thread; what comes again after the same door changes nothing."""
    passed = [
        Passage("1 1", "rename submit.json", 1),
        Passage("1 2", "call auth.login", 1),
        Passage("1 1", "call queues.get_all since rename submit.json (1)", 1),
        Passage("1 1", "call queues.get_all since rename submit.json (1)", 2),
    ]
    assert boundaries(passed) == [
        ("rename submit.json", 1, "before"),
        ("call auth.login", 1, "before"),
        ("call queues.get_all since rename submit.json (1)", 1, "before"),
        ("call queues.get_all since rename submit.json (1)", 1, "after"),
        ("call auth.login", 1, "after"),
    ]


def test_what_was_kept_is_judged_as_it_was(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for folder, results in ((right, [RIGHT]), (wrong, [RIGHT, replace(RIGHT, name="run-2", started=2)])):
        folder.mkdir()
        findings = Findings(9, [results], every=False)
        findings.save(folder)
        assert Findings.load(folder) == findings
    assert replayed(right).returncode == 0
    again = replayed(wrong)
    assert again.returncode == 1
    assert "WRONG: started 2 times; see run-2" in again.stdout
    nothing = replayed(tmp_path)
    assert nothing.returncode == 2
    assert "holds no evidence" in nothing.stderr


def replayed(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, RUN, "--replay", folder], text=True, capture_output=True, check=False)
