"""``docs/walkthrough.md`` is what the walk types, and the walk shows what a user sees."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

from walk.page import StableText, commands, page
from walk.picture import svg
from walk.steps import STEPS
from walk.terminal import on_screen

PAGE = Path(__file__).parents[2] / "docs" / "walkthrough.md"


def test_the_page_has_the_commands_of_the_walk_and_its_sentences() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert commands(text) == [step.command for step in STEPS]
    flat = " ".join(text.split())
    pictures = {path.stem for path in (PAGE.parent / "pictures").glob("*.svg")}
    assert pictures == {step.picture for step in STEPS} - {""}
    assert [step.text for step in STEPS if " ".join(step.text.split()) not in flat] == []
    assert [shown for step in STEPS for shown in step.shows if shown not in flat and shown not in text] == []


def test_a_page_that_lacks_a_command_is_noticed() -> None:
    made = page(["output"] * len(STEPS))
    assert commands(made) == [step.command for step in STEPS]
    assert commands(made.replace("$ hpc-agent free\n", "")) != [step.command for step in STEPS]


def test_what_a_line_was_overwritten_with_is_what_is_seen() -> None:
    assert on_screen("Looking …\r\x1b[Kdone\r\n") == "done\n"
    assert on_screen("\x1b[1mbold\x1b[0m  \r\n1 of 9\r9 of 9\r      \rend\r\n") == "bold\nend\n"


def test_a_picture_has_the_text_in_its_colours_and_columns() -> None:
    printed = "1 of 9\r      \r\x1b[1mServer\x1b[0m\r\n  \x1b[31mFAIL\x1b[0m  <queue>\r\n" + "a" * 25 + "\r\n"
    picture = svg(printed, 20)
    assert "1 of 9" not in picture
    assert ' font-weight="bold">Server</text>' in picture
    x, fill = re.search(r'<text x="([0-9.]+)" y="46" fill="(#[0-9a-f]+)">FAIL</text>', picture).groups()  # type: ignore[union-attr]
    assert (float(x), fill) == (14 + 2 * 8.4, "#f47067")
    assert "&lt;queue&gt;" in picture
    assert f">{'a' * 20}</text>" in picture and f">{'a' * 5}</text>" in picture
    assert ElementTree.fromstring(picture).get("viewBox") == "0 0 196 100"


def test_what_differs_from_run_to_run_is_replaced() -> None:
    stable = StableText({"http://127.0.0.1:41": "http://clearml.lab", "vm": "login"}, timedelta(hours=2, minutes=5))
    task = "0123456789abcdef" * 2
    text = stable.of(f"task {task} at http://127.0.0.1:41/x, runs/{task}/a1b2c3d4 of vm:slurm:7 in vmware, process 77")
    assert task not in text and "a1b2c3d4" not in text and "http://clearml.lab/x" in text
    assert "of login:slurm:7 in vmware, process 4242" in text
    assert stable.of(f"({task[:8]})") == f"({text.split()[1][:8]})"
    assert (
        stable.of("2026-07-08 21:15 UTC, ended 2026-07-08 23:20:11")
        == "2026-01-31 23:20 UTC, ended 2026-01-31 23:20:11"
    )
