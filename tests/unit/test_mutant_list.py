"""The list of mutants is of this tree: each applies, and names tests that exist. ``scripts/mutants`` tries them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutation.mutants import FILE, Mutant, MutantError, Mutants, mutated

ROOT = Path(__file__).parents[2]
MUTANTS = Mutants.read(ROOT)
CORE = {
    "hpc_agent/domain/decide.py",
    "hpc_agent/domain/outcome.py",
    "hpc_agent/domain/job_phase.py",
    "hpc_agent/domain/phase.py",
    "hpc_agent/executor/claim.py",
    "hpc_agent/heartbeat.py",
    "hpc_agent/lease.py",
    "hpc_agent/telemetry/checkpoint.py",
    "hpc_agent/telemetry/console_writer.py",
    "hpc_agent/telemetry/shipper.py",
    "hpc_agent/telemetry/spool.py",
}


@pytest.mark.parametrize("mutant", MUTANTS.all, ids=lambda mutant: mutant.name)
def test_each_mutant_applies(mutant: Mutant) -> None:
    assert mutated((ROOT / mutant.file).read_text(encoding="utf-8"), mutant)


def test_no_two_mutants_are_the_same() -> None:
    made = [(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS.all]
    assert len(set(made)) == len(made)


def test_each_part_of_the_core_has_mutants_and_quick_tests() -> None:
    assert {mutant.file for mutant in MUTANTS.all} == CORE
    for mutant in MUTANTS.all:
        tests = MUTANTS.tests(mutant)
        assert tests
        assert all((ROOT / test).is_file() and test.startswith(("tests/unit/", "tests/property/")) for test in tests)


EXAMPLE = Mutant(name="example", file="a.py", old="x = 1", new="x = 2")


@pytest.mark.parametrize(
    ("source", "new", "words"),
    [
        ("y = 1\n", "x = 2", "0 times"),
        ("x = 1\nx = 1\n", "x = 2", "2 times"),
        ("x = 1\n", "x = 1", "changes nothing"),
        ("x = 1\n", "x = (", "not Python"),
    ],
)
def test_a_mutant_that_does_not_apply_is_an_error(source: str, new: str, words: str) -> None:
    with pytest.raises(MutantError, match=words):
        mutated(source, Mutant(name="example", file="a.py", old="x = 1", new=new))


def test_a_mutant_takes_the_place_of_its_line() -> None:
    assert mutated("x = 1\ny = 1\n", EXAMPLE) == "x = 2\ny = 1\n"


TWICE = """
[tests]
"a.py" = ["tests/unit/test_a.py"]
[[mutant]]
name = "one"
file = "a.py"
old = "x = 1"
new = "x = 2"
[[mutant]]
name = "one"
file = "a.py"
old = "x = 1"
new = "x = 3"
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [(TWICE, "two mutants are called one"), (TWICE.replace("old", "odl"), "odl"), ("[", "mutants.toml")],
)
def test_a_list_that_is_badly_written_is_an_error(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(MutantError, match=words):
        Mutants.read(tmp_path)


def test_a_name_that_no_mutant_has_is_an_error() -> None:
    with pytest.raises(MutantError, match="no mutant is called nonesuch"):
        MUTANTS.named("nonesuch")
