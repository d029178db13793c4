"""docs/troubleshooting.md quotes what the program prints: a sentence that was changed in the code fails the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from program_sentences import missing_parts, printed_parts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| it says")]
SENTENCES = [sentence for row in ROWS for sentence in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


@pytest.fixture(scope="module")
def parts() -> frozenset[str]:
    return printed_parts(ROOT / "hpc_agent")


def test_every_row_quotes_a_sentence() -> None:
    assert len(SENTENCES) > 70
    assert [row for row in ROWS if not row.startswith("| `")] == []
    assert len(set(SENTENCES)) >= len(SENTENCES) - 1  # one is in two tables


@pytest.mark.parametrize("sentence", sorted(set(SENTENCES)))
def test_a_sentence_of_the_page_is_in_the_code(sentence: str, parts: frozenset[str]) -> None:
    assert missing_parts(sentence, parts) == []
    assert len(re.findall(r"[A-Za-z]{2,}", sentence)) >= 3, "too short to be found in the code by accident"


@pytest.mark.parametrize(
    "sentence",
    [
        "the moon is full",
        "its partition is shut: ask the administrators for how long",
        "job … is lost: for a week neither the scheduler",
        "Tree of errors; each message has what was tried",  # a docstring
    ],
)
def test_a_sentence_that_the_program_does_not_print_is_found(sentence: str, parts: frozenset[str]) -> None:
    assert missing_parts(sentence, parts) != []
