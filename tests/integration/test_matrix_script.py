"""scripts/test-matrix: what it reports, and when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from matrix_run import VersionResult, _read

SCRIPT = Path(__file__).parents[2] / "scripts" / "matrix_run.py"
REPORT = """\
<testsuites><testsuite>
<testcase file="tests/a.py" name="test_a"/>
<testcase file="tests/a.py" name="test_b"><skipped message="no GPU here"/></testcase>
<testcase file="tests/b.py" name="test_c"><failure message="assert 1 == 2"/></testcase>
</testsuite></testsuites>
"""


def test_a_version_that_cannot_be_had_is_a_failure(tmp_path: Path) -> None:
    nowhere = {"HPC_AGENT_DEBIAN_MIRROR": "http://127.0.0.1:9/debian", "HPC_AGENT_DEBIAN_CACHE": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, SCRIPT, "--core", "24.11"],
        env={**os.environ, **nowhere},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert "24.11: not tested: " in answer.stdout
    assert answer.returncode == 1


def test_a_report_counts_by_file_and_gives_reasons(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    files = _read(tmp_path / "report.xml")
    assert files["tests/a.py"].counts == {"passed": 1, "skipped": 1}
    assert files["tests/a.py"].details == ["skipped: test_b: no GPU here"]
    assert files["tests/b.py"].details == ["failed: test_c: assert 1 == 2"]


@pytest.mark.parametrize(
    ("report", "is_ok"), [(REPORT, True), (REPORT.replace('"test_a"/', '"a"><skipped/></testcase'), False)]
)
def test_a_version_on_which_nothing_passed_is_not_ok(tmp_path: Path, report: str, is_ok: bool) -> None:
    """Such as one whose cluster could not be started, so that all was skipped."""
    (tmp_path / "report.xml").write_text(report)
    assert VersionResult("24.11", files=_read(tmp_path / "report.xml")).is_ok is is_ok
