"""``scripts/check`` looks at every Python file of the tree, and at every shell script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / folder for folder in ("hpc_agent", "scripts", "tests", ".ci")]


def files() -> list[Path]:
    found = (path for folder in SOURCES for path in folder.rglob("*") if path.is_file())
    return [path for path in found if "__pycache__" not in path.parts]


def first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(200)


def python_files() -> list[Path]:
    return [path for path in files() if path.suffix == ".py" or b"python" in first_line(path).partition(b"#!")[2]]


def shell_scripts() -> list[Path]:
    return [
        path
        for path in files()
        if path.suffix == ".sh"
        # A template is not a script yet.
        or (path.suffix not in (".j2", ".template") and b"sh" in first_line(path).partition(b"#!")[2].split(b"/")[-1])
    ]


def test_mypy_checks_all_python() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file)["tool"]["mypy"]
    assert settings["strict"] is True
    checked = [ROOT / entry for entry in settings["files"]]
    folders = [path for path in checked if path.is_dir()]
    left_out = [
        path
        for path in python_files()
        # In a folder mypy looks for the suffix alone.
        if path not in checked and not (path.suffix == ".py" and any(path.is_relative_to(folder) for folder in folders))
    ]
    assert left_out == []


def test_ruff_checks_all_python() -> None:
    ruff = Path(sys.executable).parent / "ruff"
    shown = subprocess.run([ruff, "check", "--show-files", "."], cwd=ROOT, text=True, capture_output=True, check=True)
    checked = {Path(line) for line in shown.stdout.splitlines()}
    assert sorted(set(python_files()) - checked) == []


def test_shell_scripts_are_found_by_what_check_looks_for() -> None:
    found = shell_scripts()
    assert len(found) > 10
    for path in found:
        assert path.name == "common.sh" or first_line(path) == b"#!/usr/bin/env bash\n", path


def test_a_wrong_type_and_an_untyped_test_are_noticed(tmp_path: Path) -> None:
    """With the settings of this project: a file next to the tests is one of them."""
    sample = tmp_path / "test_sample.py"
    sample.write_text("def test_untyped(tmp_path):\n    assert tmp_path\n\n\ndef half(n: int) -> str:\n    return n\n")
    mypy = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    mypy += ["--no-incremental", "--cache-dir", str(tmp_path / "cache")]  # this user may not write in the checkout
    done = subprocess.run([*mypy, str(sample)], cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "[no-untyped-def]" in done.stdout
    assert "[return-value]" in done.stdout


@pytest.mark.parametrize("name", ["manual_clock", "waiting"])
def test_there_is_one_clock_and_one_way_to_wait(name: str) -> None:
    """Another class with a ``monotonic``, or another function that waits for a condition, would be a second one."""
    mark = {"manual_clock": "    def monotonic(self)", "waiting": "\ndef wait_until("}[name]
    again = [path for path in (ROOT / "tests").rglob("*.py") if mark in path.read_text(encoding="utf-8")]
    assert [path.stem for path in again if path != Path(__file__)] == [name]
