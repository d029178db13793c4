"""Tables: as wide as the terminal, whole where they are piped, without columns that are empty."""

from __future__ import annotations

import pytest

from hpc_agent.cli.table import Column, number, print_table, text, wrapped

COLUMNS = (text("QUEUE"), text("NAME"), number("TASKS"), number("GPU"), Column("DAY"))
ROWS = (
    ("a100", "finetune the large model on everything", "12", "", "2026-03-01"),
    ("cpu", "x", "1000", "", "2026-03-02"),
)


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def test_piped_it_is_whole_and_numbers_are_aligned_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "QUEUE  NAME                                    TASKS  DAY",
        "a100   finetune the large model on everything     12  2026-03-01",
        "cpu    x                                        1000  2026-03-02",
    ]


def test_a_narrow_terminal_cuts_the_widest_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(COLUMNS, ROWS, ["asked 64 GiB, used 9 at most: memory_gb 12 would have been enough", ""])
    assert capsys.readouterr().out.splitlines() == [
        "QUEUE  NAME            TASKS  DAY",
        "a100   finetune the …     12  2026-03-01",
        "  asked 64 GiB, used 9 at most:",
        "  memory_gb 12 would have been enough",
        "cpu    x                1000  2026-03-02",
    ]


def test_numbers_are_never_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    print_table(COLUMNS, ROWS)
    assert "1000  2026-03-02" in capsys.readouterr().out


def test_a_name_cannot_draw_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([text("NAME")], [["\x1b[31mred\x1b[0m\nsecond\rline\x07"]])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and printed[1].isprintable()


def test_colour_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([text("NAME")], [["x"]])
    assert "\x1b" not in capsys.readouterr().out


def test_wide_letters_take_two_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    print_table([text("NAME"), Column("DAY")], [["日本語", "1"], ["größe", "2"], ["abcdef", "3"]])
    assert capsys.readouterr().out.splitlines() == ["NAME    DAY", "日本語  1", "größe   2", "abcdef  3"]
    monkeypatch.setenv("COLUMNS", "12")
    print_table([text("NAME"), Column("DAY")], [["日本語日本語", "1"], ["x", "2"]])
    assert capsys.readouterr().out.splitlines() == ["NAME     DAY", "日本語…  1", "x        2"]


def test_a_command_in_a_paragraph_stays_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = "night was asked to end; `hpc-agent logs -f c5089307` shows its last words"
    lines = wrapped(text, "  ", "    ").splitlines()
    assert "    `hpc-agent logs -f c5089307` shows" in lines
    assert max(map(len, lines)) <= 40 and " ".join(" ".join(lines).split()) == text
    monkeypatch.delenv("COLUMNS")
    assert wrapped(text) == text
