"""Pages quote what the program prints: a sentence that was changed in the code fails the page.

docs/troubleshooting.md has gaps where the program fills in values, docs/faults.md and docs/own-scripts.md examples.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from program_sentences import GAP, missing_parts, printed_parts

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| it says")]
SENTENCES = [sentence for row in ROWS for sentence in re.findall(r"`([^`]+)`", row.split(" | ")[0])]

EXAMPLE_VALUE = re.compile(r"\(.*?\)|[;:] |\d[\d:.-]*(?: UTC)?|\b(?:n7|anna|by|FAILED|OSError:)(?!\w)")
"""In an example: a value, what is in brackets, and where one sentence ends and the next step begins."""
OF_OTHERS = ("ERROR: your project has no hours left",)
"""What other programs print."""


def examples(page: str) -> list[str]:
    """Sentences of at least four words between back-ticks in a page's text, with gaps for their values."""
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    quoted = (sentence for sentence in re.findall(r"`([^`\n]+)`", text) if sentence not in OF_OTHERS)
    commands = ("hpc-", "-", "/", "sbatch ", "hpc.")
    return [EXAMPLE_VALUE.sub(GAP, text) for text in quoted if len(text.split()) >= 4 and not text.startswith(commands)]


EXAMPLES = sorted({*examples("faults.md"), *examples("own-scripts.md")})


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


@pytest.mark.parametrize("sentence", EXAMPLES)
def test_an_example_of_what_a_task_says_is_in_the_code(sentence: str, parts: frozenset[str]) -> None:
    assert missing_parts(sentence, parts) == []


def test_there_are_many_examples() -> None:
    assert len(EXAMPLES) > 15
    assert "time limit … reached after ……ask for more with the user property time_limit" in EXAMPLES


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
