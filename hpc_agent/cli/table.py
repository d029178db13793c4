"""Tables for a terminal: columns as wide as they need, cut where it is narrower; whole where they are piped."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import click

_GAP = "  "
_LEAST = 6
"""Characters that stay of a column that is cut."""
_COMMAND = re.compile(r"`[^`]{1,60}`")
_KEPT_BLANK = "\0"
_WIDEST = 110
"""Columns of a paragraph: longer lines are hard to read."""


class Column(NamedTuple):
    """Not a struct: the help of a command needs this module and not msgspec.

    ``shrinks``: may be cut where the terminal is too narrow; numbers may not. ``style``: of a cell's text."""

    title: str
    right: bool = False
    shrinks: bool = False
    style: Callable[[str], str] | None = None


def number(title: str) -> Column:
    return Column(title, right=True)


def text(title: str) -> Column:
    return Column(title, shrinks=True)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Columns that are empty throughout are left out. ``notes``: a line below each row, where it is not empty."""
    for line in table_lines(columns, rows, notes):
        click.echo(line)


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> list[str]:
    """As ``print_table`` prints it."""
    titles = [column.title for column in columns]
    rows = [[one_line(cell) for cell in row] for row in rows]
    shown = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    widths = {index: max(_width(row[index]) for row in (titles, *rows)) for index in shown}
    _shrink(widths, [index for index in shown if columns[index].shrinks], room())
    heads = [columns[index]._replace(style=None) for index in shown]
    head = _line([titles[index] for index in shown], heads, [widths[index] for index in shown])
    lines = [click.style(head, bold=True)]
    for position, row in enumerate(rows):
        lines.append(_line([row[i] for i in shown], [columns[i] for i in shown], [widths[i] for i in shown]))
        if position < len(notes) and notes[position]:
            lines.append(click.style(_wrapped(notes[position]), dim=True))
    return lines


def room() -> int | None:
    """Columns of the terminal; None where there is none, and nothing is to be cut."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    return shutil.get_terminal_size().columns


def _shrink(widths: dict[int, int], shrinkable: Sequence[int], width: int | None) -> None:
    """Take from the widest first."""
    while width is not None and sum(widths.values()) + len(_GAP) * (len(widths) - 1) > width:
        widest = max((index for index in shrinkable if widths[index] > _LEAST), key=widths.__getitem__, default=None)
        if widest is None:
            return
        widths[widest] -= 1


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    shown = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        text = _cut(cell, width)
        padding = " " * (width - _width(text))
        text = column.style(text) if column.style and text else text
        shown.append(padding + text if column.right else text + padding)
    return _GAP.join(shown).rstrip()


def _cut(cell: str, width: int) -> str:
    if _width(cell) <= width:
        return cell
    while cell and _width(cell) >= width:
        cell = cell[:-1]
    return f"{cell}…"


def _width(text: str) -> int:
    """Columns of the terminal: Chinese, Japanese and Korean letters take two, combining marks none."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in ("W", "F"))
        for letter in text
    )


def one_line(text: str) -> str:
    """Without what would move the cursor or colour the terminal: names and messages may be other users'."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """As ``one_line``, with all of its blanks."""
    return "".join(letter for letter in text if letter.isprintable())


def _wrapped(note: str) -> str:
    return click.wrap_text(note, (room() or 1000) - 1, initial_indent="  ", subsequent_indent="  ")


def wrapped(paragraph: str, first: str = "", rest: str = "") -> str:
    """Wrapped where a person reads it; long words, as paths are, stay whole. Piped, a paragraph is one line."""
    width = room()
    if width is None:
        return first + paragraph
    # A command is copied: what is between back-ticks stays on one line where that is long enough.
    kept = _COMMAND.sub(lambda found: found[0].replace(" ", _KEPT_BLANK), paragraph)
    lines = textwrap.fill(
        kept,
        min(width, _WIDEST),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.replace(_KEPT_BLANK, " ")


@contextmanager
def transient_line(what: str) -> Iterator[None]:
    """What is being waited for, on stderr where that is a terminal; it is erased again."""
    shown = sys.stderr.isatty()
    if shown:
        width = shutil.get_terminal_size().columns - 1
        click.echo(click.style(_cut(one_line(what), width), dim=True), nl=False, err=True)
    try:
        yield
    finally:
        if shown:
            click.echo("\r\x1b[K", nl=False, err=True)
