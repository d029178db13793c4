"""Properties of a three-way merge of lines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_agent.setup.three_way_merge import MergedLines, merge

LINES = st.lists(st.sampled_from("abcde"), max_size=8).map(tuple)
"""Few different lines: repeated ones are what such merges trip over."""


@given(LINES, LINES)
def test_without_edits_the_new_text_holds(base: tuple[str, ...], new: tuple[str, ...]) -> None:
    assert merge(base, base, new) == MergedLines(new)


@given(LINES, LINES)
def test_without_news_the_edited_text_holds(base: tuple[str, ...], mine: tuple[str, ...]) -> None:
    assert merge(base, mine, base) == MergedLines(mine)


@given(LINES, LINES)
def test_what_both_changed_alike_is_taken_once(base: tuple[str, ...], new: tuple[str, ...]) -> None:
    assert merge(base, new, new) == MergedLines(new)


@settings(max_examples=400)
@given(LINES, LINES, LINES)
def test_every_added_line_of_the_person_is_kept(
    base: tuple[str, ...], mine: tuple[str, ...], new: tuple[str, ...]
) -> None:
    own = tuple(line.upper() if number % 2 else line for number, line in enumerate(mine))
    merged = merge(base, own, new).lines
    assert [line for line in merged if line.isupper()] == [line for line in own if line.isupper()]


@settings(max_examples=400)
@given(LINES, LINES, LINES)
def test_a_new_line_is_in_the_result_or_set_aside(
    base: tuple[str, ...], mine: tuple[str, ...], new: tuple[str, ...]
) -> None:
    fresh = tuple(line.upper() if number % 2 else line for number, line in enumerate(new))
    merged = merge(base, mine, fresh)
    aside = [line for lines in merged.set_aside for line in lines]
    expected = [line for line in fresh if line.isupper()]
    assert sorted(line for line in (*merged.lines, *aside) if line.isupper()) == sorted(expected)


def test_edits_and_news_in_different_places_are_both_taken() -> None:
    base = ("# facts", "gpu_flag: gres", "", "partition: main", "time: 1", "", "end")
    mine = ("# facts", "gpu_flag: gres", "", "partition: mine", "time: 1", "# mine", "", "end")
    new = ("# facts of today", "gpu_flag: gpus", "", "partition: main", "time: 1", "", "end")
    assert merge(base, mine, new).lines == (
        *("# facts of today", "gpu_flag: gpus", "", "partition: mine", "time: 1", "# mine", "", "end"),
    )


def test_neighbouring_lines_are_distinguished() -> None:
    merged = merge(("a", "x: 1", "y: 1", "b"), ("a", "x: 1", "y: 2", "b"), ("a", "x: 3", "y: 1", "b"))
    assert merged == MergedLines(("a", "x: 3", "y: 2", "b"))


def test_where_both_changed_a_line_the_persons_holds_and_the_other_is_set_aside() -> None:
    merged = merge(("a", "x: 1", "b"), ("a", "x: 2", "b"), ("a", "x: 3", "b"))
    assert merged == MergedLines(("a", "x: 2", "b"), (("x: 3",),))
    assert merge(("a", "x: 1", "b"), ("a", "b"), ("a", "x: 3", "b")) == MergedLines(("a", "b"), (("x: 3",),))
