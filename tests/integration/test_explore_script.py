"""``scripts/explore``: what it runs can be run again, and its exit code says how it went."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "explore_run.py"


def explore(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(argv, text=True, capture_output=True, timeout=300, check=False)


@pytest.fixture
def test_file(tmp_path: Path) -> Path:
    """Passes with an even seed only, and only where it is told to look at three times as many examples."""
    path = tmp_path / "test_example.py"
    path.write_text(
        "import os\n\ndef test_example(request):\n    assert os.environ['EXPLORE'] == '3'\n"
        "    assert int(request.config.getoption('--hypothesis-seed')) % 2 == 0\n",
        encoding="utf-8",
    )
    return path


def test_each_round_has_a_seed_of_its_own_and_one_that_fails_says_how_to_run_it_again(test_file: Path) -> None:
    done = explore("--rounds", "5", "--times", "3", "--seed", "40", "--", str(test_file))
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.findall(r"^round (\d): --seed (\d+)", done.stdout, re.MULTILINE) == [("1", "40"), ("2", "41")]
    [again] = re.findall(r"^again: scripts/explore (.*)$", done.stdout, re.MULTILINE)
    assert again == f"--rounds 1 --seed 41 --times 3 -- {test_file}"
    assert explore(*again.split()).returncode == 1


def test_rounds_that_pass_are_counted(test_file: Path) -> None:
    done = explore("--rounds", "1", "--times", "3", "--seed", "40", "--", str(test_file))
    assert (done.returncode, done.stdout.splitlines()[-1][:10]) == (0, "1 rounds i")


def test_no_round_begins_after_the_time_is_up(test_file: Path) -> None:
    done = explore("--minutes", "0.0001", "--times", "3", "--seed", "40", "--", str(test_file))
    assert (done.returncode, done.stdout.count("round 1"), done.stdout.count("round 2")) == (0, 1, 0)


def test_tests_that_cannot_run_are_no_success(tmp_path: Path) -> None:
    assert explore("--rounds", "1", "--", str(tmp_path / "nonesuch.py")).returncode == 3


@pytest.mark.parametrize("arguments", [["--times", "0"], ["--minutes", "-1"], ["--nonesuch"]])
def test_a_wrong_argument_is_told(arguments: list[str]) -> None:
    done = explore(*arguments)
    assert done.returncode == 2
    assert "error" in done.stderr
