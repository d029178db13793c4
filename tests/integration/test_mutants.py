"""Broken lines of the core turn the tests red; and the check of mutants itself says what is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutation.mutants import FILE, Mutants
from mutation.trial import Outcome, try_all

ROOT = Path(__file__).parents[2]
BROKEN_LINES = (
    "uncertain-submission-is-repeated-at-once",  # domain/decide
    "task-that-ran-is-run-again",
    "uncertain-submission-counts-as-accepted",  # domain/phase
    "cancellation-is-not-heard-first",  # domain/judge
    "claim-of-another-job",  # executor/claim
    "daemon-does-not-fence-its-executor",
    "half-a-character-is-sent",  # telemetry: spool, shipper, writer
    "doubtful-batch-is-sent-blindly",
    "end-is-not-heard",
    "living-holder-is-replaced",  # lease
)


def test_each_of_ten_broken_lines_turns_the_quick_tests_red() -> None:
    mutants = Mutants.read(ROOT).named(*BROKEN_LINES)
    # That they pass without a mutant is what the run of all tests is for.
    found = try_all(ROOT, mutants, jobs=2, seconds=300, tests_pass=True)
    trials = {trial.mutant.name: trial for trial in found}
    assert {name: trial.outcome for name, trial in trials.items() if not trial.is_killed} == {}
    assert set(trials) == set(BROKEN_LINES)


SOURCE = "def shares(cake, guests):\n    if guests == 0:\n        return 0\n    return cake // guests\n"
TESTS = """
from hpc_agent.shares import shares

def test_shares():
    assert (shares(9, 2), shares(9, 0)) == (4, 0)
"""
LISTED = """
[tests]
"hpc_agent/shares.py" = ["tests/unit/test_shares.py"]

[[mutant]]
name = "example"
file = "hpc_agent/shares.py"
"""
Check = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """``scripts/mutants`` on a small tree: exit code, figures, stderr."""
    for name, text in {
        "hpc_agent/__init__.py": "",
        "hpc_agent/shares.py": SOURCE,
        "tests/unit/test_shares.py": TESTS,
        "pyproject.toml": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)

    def run(mutant: str, *, seconds: int = 60, tests: str = TESTS) -> tuple[int, dict[str, Any], str]:
        (tmp_path / FILE).write_text(LISTED + mutant, encoding="utf-8")
        (tmp_path / "tests/unit/test_shares.py").write_text(tests, encoding="utf-8")
        figures = tmp_path / "figures.json"
        argv = [sys.executable, str(ROOT / "scripts/mutants_run.py"), "--root", str(tmp_path), "--json", str(figures)]
        done = subprocess.run(
            [*argv, "--seconds", str(seconds)],
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        written = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
        return done.returncode, written, done.stderr

    return run


def counts(figures: dict[str, Any]) -> tuple[int, int, int]:
    return figures["killed"], figures["survived"], figures["broken"]


def test_a_mutant_that_a_test_notices_is_killed(check: Check) -> None:
    code, figures, _ = check('old = "cake // guests"\nnew = "cake"\n')
    assert (code, counts(figures)) == (0, (1, 0, 0))
    [trial] = figures["trials"]
    assert (trial["outcome"], trial["by"]) == (Outcome.KILLED.value, "tests/unit/test_shares.py::test_shares")


def test_one_that_no_test_notices_survives_and_that_is_a_failure(check: Check) -> None:
    code, figures, _ = check('old = "guests == 0"\nnew = "guests <= 0"\n')
    assert (code, counts(figures)) == (1, (0, 1, 0))


def test_one_that_is_listed_with_its_reason_may_survive(check: Check) -> None:
    code, figures, _ = check('old = "guests == 0"\nnew = "guests <= 0"\nsurvives = "no party is smaller"\n')
    assert (code, counts(figures), figures["survived_as_listed"]) == (0, (0, 1, 0), 1)


def test_one_that_is_listed_as_surviving_and_does_not_is_a_failure(check: Check) -> None:
    code, figures, _ = check('old = "cake // guests"\nnew = "cake"\nsurvives = "not counted"\n')
    assert (code, counts(figures)) == (1, (1, 0, 0))


def test_tests_that_come_to_no_end_have_noticed(check: Check) -> None:
    code, figures, _ = check('old = "return cake // guests"\nnew = "return shares(cake, guests) while True else 0"\n')
    assert (code, figures) == (2, {}), "it is not Python"
    code, figures, _ = check('old = "        return 0"\nnew = "        while True: pass"\n', seconds=5)
    assert (code, counts(figures)) == (0, (1, 0, 0))
    assert figures["trials"][0]["outcome"] == Outcome.TIMED_OUT.value


def test_one_with_which_no_test_runs_shows_nothing(check: Check) -> None:
    code, figures, _ = check('old = "def shares"\nnew = "def other"\n')
    assert (code, counts(figures)) == (1, (0, 0, 1))


def test_one_that_no_longer_applies_is_a_failure(check: Check) -> None:
    code, _, error = check('old = "cake / guests"\nnew = "cake"\n')
    assert code == 2
    assert "its old text is in hpc_agent/shares.py 0 times" in error


def test_tests_that_fail_anyway_show_nothing(check: Check) -> None:
    code, _, error = check('old = "cake // guests"\nnew = "cake"\n', tests=TESTS.replace("(4, 0)", "(5, 0)"))
    assert code == 2
    assert "without any mutant the tests end with exit code 1" in error
