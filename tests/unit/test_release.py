"""A release is made only where tag, version and changelog agree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from build_run import ReleaseError, entry, release_notes

ROOT = Path(__file__).parents[2]
CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-24

### Fixed

- A thing.

## [0.1.0] - 2026-12-01

- Everything.

## [0.0.9] - 2026-11-01

## [0.0.8]

- Undated.
"""


def test_the_notes_are_the_entry_of_the_version() -> None:
    assert release_notes("v0.2.0", "0.2.0", CHANGELOG) == "### Fixed\n\n- A thing."
    assert entry(CHANGELOG, "0.1.0") == "- Everything."


@pytest.mark.parametrize(
    ("tag", "version", "why"),
    [
        ("v0.3.0", "0.2.0", "the tag must be v0.2.0"),
        ("0.2.0", "0.2.0", "the tag must be v0.2.0"),
        ("v0.3.0", "0.3.0", r"no heading '## \[0.3.0\]"),
        ("v0.0.8", "0.0.8", r"no heading '## \[0.0.8\] - YYYY"),
        ("v0.0.9", "0.0.9", r"says nothing under \[0.0.9\]"),
    ],
)
def test_what_does_not_agree_is_refused(tag: str, version: str, why: str) -> None:
    with pytest.raises(ReleaseError, match=why):
        release_notes(tag, version, CHANGELOG)


def test_a_wrong_tag_builds_nothing(tmp_path: Path) -> None:
    argv = [
        sys.executable,
        str(ROOT / "scripts" / "build_run.py"),
        "--tag",
        "v99.0.0",
        "--into",
        str(tmp_path / "dist"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the tag is v99.0.0" in done.stderr
    assert not (tmp_path / "dist").exists()


def test_workflows_run_scripts_that_are_there() -> None:
    text = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    named = set(re.findall(r"(?:run: |\s)((?:scripts|\.ci|tests)/[\w./-]+)", text))
    assert {"scripts/check", "scripts/docs", "scripts/build", ".ci/run"} <= named
    assert [name for name in named if not (ROOT / name).exists()] == []
