"""Text is UTF-8 whatever the locale: in our files, in what we print, and in names that are not UTF-8."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import pytest
from capabilities import missing
from syntax_trees import syntax_nodes

from hpc_agent.file_records import read_record, write_record
from hpc_agent.runs.attempt_records import SubmissionRecord
from hpc_agent.tracking.tracked_records import OutputStream

PACKAGE = Path(__file__).parents[2] / "hpc_agent"
UMLAUT = "küche-€"


@pytest.fixture(params=["C", "POSIX", pytest.param("de_DE", marks=pytest.mark.locales)])
def locale(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, str]:
    """One in which Python decodes with something else than UTF-8."""
    name = str(request.param)
    if name != "de_DE":
        return {"LC_ALL": name, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    argv = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_DE")]
    if subprocess.run(argv, capture_output=True, check=False).returncode > 1:  # 1: made, with warnings
        missing("locales", "localedef has no de_DE: Debian's package locales")
    return {"LOCPATH": str(tmp_path), "LC_ALL": name}


def in_locale(locale: Mapping[str, str], *argv: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *argv], env={**own, **locale, **env}, capture_output=True, timeout=60, check=False
    )


def test_a_program_of_ours_reads_and_prints_utf8_in_any_locale(locale: Mapping[str, str], tmp_path: Path) -> None:
    conf = tmp_path / os.fsdecode(f"{UMLAUT}.conf".encode())
    conf.write_bytes(f'agent.worker_name: "{UMLAUT}"\n'.encode())
    bare = in_locale(locale, "-c", "import sys; print(sys.getfilesystemencoding())")
    assert bare.stdout.strip() != b"utf-8", "the locale is not one that this test is about"
    for options in ([], ["-I"]):
        done = in_locale(locale, *options, "-m", "hpc_agent", "--config-file", str(conf), "config")
        assert done.returncode == 0, done.stderr
        assert UMLAUT.encode() in done.stdout


def test_the_local_supervisor_reads_names_in_utf8(locale: Mapping[str, str], tmp_path: Path) -> None:
    program = (
        "from hpc_agent.utf8_mode import ensure_utf8_mode; ensure_utf8_mode(); import os, sys, subprocess;"
        "print(sys.flags.utf8_mode, open(sys.argv[1]).read());"
        "subprocess.run([sys.executable, '-c', 'import sys; print(sys.flags.utf8_mode)'])"
    )
    text = tmp_path / os.fsdecode(f"{UMLAUT}.txt".encode())
    text.write_bytes(UMLAUT.encode())
    done = in_locale(locale, "-c", program, str(text))
    assert sorted(done.stdout.decode().split("\n")) == ["", "1", f"1 {UMLAUT}"], done.stderr


def test_a_utf8_locale_costs_no_second_start() -> None:
    program = "from hpc_agent.utf8_mode import ensure_utf8_mode; ensure_utf8_mode(); import sys; print(sys.orig_argv)"
    done = in_locale({"LC_ALL": "C.UTF-8"}, "-c", program)
    assert b"utf8'" not in done.stdout and done.returncode == 0


def test_a_name_that_is_not_utf8_survives_in_a_record(tmp_path: Path) -> None:
    path = os.fsdecode(b"/home/u/k\xfcche/job.out")
    write_record(tmp_path / "stream.json", OutputStream(path=path, inode=7))
    found = read_record(tmp_path / "stream.json", OutputStream)
    assert found is not None
    assert os.fsencode(found.path) == b"/home/u/k\xfcche/job.out"


def test_a_record_with_such_a_name_keeps_its_other_types(tmp_path: Path) -> None:
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    before = SubmissionRecord(state="accepted", at=at, queue="q", message=os.fsdecode(b"no \xfc"))
    write_record(tmp_path / "submit.json", before)
    assert read_record(tmp_path / "submit.json", SubmissionRecord) == before


def test_every_text_file_is_opened_with_an_encoding() -> None:
    """Where ruff's rule cannot tell that something is a path."""
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in syntax_nodes(path)
        if isinstance(node, ast.Call) and _is_without_encoding(node)
    ]
    assert wrong == []


def _is_without_encoding(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    named = any(keyword.arg == "encoding" for keyword in call.keywords)
    return name in ("read_text", "write_text", "FileHandler") and not named
