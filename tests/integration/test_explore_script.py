"""``scripts/explore``: what it runs can be run again, and its exit code says how it went."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def explore(*arguments: str, script: Path = ROOT / "scripts" / "explore_run.py") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(script), *arguments]
    return subprocess.run(argv, text=True, capture_output=True, timeout=300, check=False)


@pytest.fixture
def test_file(tmp_path: Path) -> Path:
    """Passes with an even seed only, and only where it is asked to look at three times as many examples."""
    path = tmp_path / "test_example.py"
    path.write_text(
        "import os\n\ndef test_example():\n    assert os.environ['EXPLORE'] == '3'\n"
        "    assert int(os.environ['EXPLORE_SEED']) % 2 == 0\n",
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


PROPERTY = """
from exploring import examples
from hypothesis import given, strategies as st

@examples(50)
@given(st.integers(0, 10**6))
def test_a_property_that_does_not_hold(number):
    print("tried", number)
    assert number < 900_000
"""


def test_an_example_that_failed_is_kept_and_is_the_first_of_the_next_exploration(tmp_path: Path) -> None:
    """Of a copy of the script, which keeps it in its own tree."""
    for name in ("scripts/explore_run.py", "tests/support/exploring.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["tests/support"]\n')
    (tmp_path / "tests/test_property.py").write_text(PROPERTY)
    script = tmp_path / "scripts/explore_run.py"
    tests = ("--", "tests/test_property.py", "--show-capture=stdout")
    assert explore("--rounds", "1", "--times", "40", "--seed", "1", *tests, script=script).returncode == 1
    assert any((tmp_path / ".hypothesis/examples").iterdir())
    again = explore("--rounds", "1", "--times", "1", "--seed", "2", *tests, script=script)
    assert again.returncode == 1
    [first, *_] = re.findall(r"tried (\d+)", again.stdout)
    assert int(first) == 900_000


def test_rounds_that_pass_are_counted(test_file: Path) -> None:
    done = explore("--rounds", "1", "--times", "3", "--seed", "40", "--", str(test_file))
    assert (done.returncode, done.stdout.splitlines()[-1][:10]) == (0, "1 rounds i")


def test_no_round_begins_after_the_time_is_up(test_file: Path) -> None:
    done = explore("--minutes", "0.0001", "--times", "3", "--seed", "40", "--", str(test_file))
    assert (done.returncode, done.stdout.count("round 1"), done.stdout.count("round 2")) == (0, 1, 0)


def test_tests_that_cannot_run_are_not_a_success(tmp_path: Path) -> None:
    assert explore("--rounds", "1", "--", str(tmp_path / "nonesuch.py")).returncode == 3


@pytest.mark.parametrize("arguments", [["--times", "0"], ["--minutes", "-1"], ["--nonesuch"]])
def test_a_wrong_argument_is_reported(arguments: list[str]) -> None:
    done = explore(*arguments)
    assert done.returncode == 2
    assert "error" in done.stderr
