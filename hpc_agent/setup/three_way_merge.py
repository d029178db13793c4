"""Three-way merge of lines: what a program wrote, what a person made of it, what the program would write now. Pure.

A line that the person has not touched follows the program; one that they changed, added or deleted stays theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import msgspec


class MergedLines(msgspec.Struct, frozen=True):
    """``lines`` of the result. ``set_aside``: new lines where both made changes, and the person's hold."""

    lines: tuple[str, ...]
    set_aside: tuple[tuple[str, ...], ...] = ()


class _Common(NamedTuple):
    """A run of lines that all three have."""

    base: int
    mine: int
    new: int
    length: int


def merge(base: Sequence[str], mine: Sequence[str], new: Sequence[str]) -> MergedLines:
    """``mine`` with the changes from ``base`` to ``new``."""
    result: list[str] = []
    set_aside = []
    at = _Common(0, 0, 0, 0)
    for common in _common_runs(base, mine, new):
        parts = (base[at.base : common.base], mine[at.mine : common.mine], new[at.new : common.new])
        for before, own, proposed in _pieces(*map(tuple, parts)):
            if own == before:
                result += proposed
            else:
                result += own
                if proposed not in (before, own):
                    set_aside.append(proposed)
        result += base[common.base : common.base + common.length]
        at = _Common(common.base + common.length, common.mine + common.length, common.new + common.length, 0)
    return MergedLines(tuple(result), tuple(set_aside))


_Lines = tuple[str, ...]


def _pieces(before: _Lines, own: _Lines, proposed: _Lines) -> Iterator[tuple[_Lines, _Lines, _Lines]]:
    """Where the program changes lines without adding or removing any, each edit of the person is a piece of its own,
    and so is each line that they left alone."""
    if len(before) != len(proposed):
        yield before, own, proposed
        return
    for _, start, end, own_start, own_end in SequenceMatcher(None, before, own, autojunk=False).get_opcodes():
        if end - start == own_end - own_start:
            for line in range(end - start):
                yield (before[start + line],), (own[own_start + line],), (proposed[start + line],)
        else:
            yield before[start:end], own[own_start:own_end], proposed[start:end]


def _common_runs(base: Sequence[str], mine: Sequence[str], new: Sequence[str]) -> Iterator[_Common]:
    """In order; an empty one at the end of all three comes last."""
    in_mine = _matching(base, mine)
    in_new = _matching(base, new)
    start = 0
    while start < len(base):
        length = 0
        while _both_go_on(in_mine, in_new, start, length):
            length += 1
        if length:
            yield _Common(start, in_mine[start], in_new[start], length)
        start += max(length, 1)
    yield _Common(len(base), len(mine), len(new), 0)


def _matching(base: Sequence[str], other: Sequence[str]) -> dict[int, int]:
    blocks = SequenceMatcher(None, base, other, autojunk=False).get_matching_blocks()
    return {block.a + offset: block.b + offset for block in blocks for offset in range(block.size)}


def _both_go_on(in_mine: dict[int, int], in_new: dict[int, int], start: int, length: int) -> bool:
    """Whether the line after a common run is common too, and next in all three."""
    line = start + length
    if line not in in_mine or line not in in_new:
        return False
    return not length or (in_mine[line] == in_mine[start] + length and in_new[line] == in_new[start] + length)
