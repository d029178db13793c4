"""Which test files one worker gets together (``scripts/test_scheduling.py``)."""

from __future__ import annotations

import re
from pathlib import Path

from test_scheduling import OF_THE_SOURCE, TOGETHER

ROOT = Path(__file__).parents[2]
LOOKS_AT_SYNTAX_TREES = re.compile(r"^from (syntax_trees|program_sentences) import", re.MULTILINE)


def test_the_files_are_there() -> None:
    assert [file for file in TOGETHER if not (ROOT / file).is_file()] == []


def test_all_that_look_at_the_syntax_trees_of_the_package_are_together() -> None:
    files = (ROOT / "tests").glob("*/test_*.py")
    found = {file for file in files if LOOKS_AT_SYNTAX_TREES.search(file.read_text(encoding="utf-8"))}
    assert {str(file.relative_to(ROOT)) for file in found} == OF_THE_SOURCE
