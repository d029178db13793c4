"""Tables for a terminal: columns as wide as they need, cut where it is narrower; whole where they are piped."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

_GAP = "  "
_LEAST = 6
"""Characters that stay of a column that is cut."""


@dataclass(frozen=True)
class Column:
    """``shrinks``: may be cut where the terminal is too narrow; numbers may not."""

    title: str
    right: bool = False
    shrinks: bool = False


def number(title: str) -> Column:
    return Column(title, right=True)


def text(title: str) -> Column:
    return Column(title, shrinks=True)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Columns that are empty throughout are left out. ``notes``: a line below each row, where it is not empty."""
    rows = [[_printable(cell) for cell in row] for row in rows]
    shown = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    widths = {index: max(len(columns[index].title), *(len(row[index]) for row in rows)) for index in shown}
    _shrink(widths, [index for index in shown if columns[index].shrinks], _room())
    titles = _line([columns[index].title for index in shown], [columns[i] for i in shown], [widths[i] for i in shown])
    click.echo(_styled(titles, bold=True))
    for position, row in enumerate(rows):
        click.echo(_line([row[i] for i in shown], [columns[i] for i in shown], [widths[i] for i in shown]))
        if position < len(notes) and notes[position]:
            click.echo(_styled(_wrapped(notes[position]), dim=True))


def _styled(line: str, **style: bool) -> str:
    """click leaves styles out where nothing is a terminal, and does not know of NO_COLOR."""
    return line if os.environ.get("NO_COLOR") else click.style(line, **style)


def _room() -> int | None:
    """Columns of the terminal; None where there is none, and nothing is to be cut."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    return shutil.get_terminal_size().columns


def _shrink(widths: dict[int, int], shrinkable: Sequence[int], room: int | None) -> None:
    """Take from the widest first."""
    while room is not None and sum(widths.values()) + len(_GAP) * (len(widths) - 1) > room:
        widest = max((index for index in shrinkable if widths[index] > _LEAST), key=widths.__getitem__, default=None)
        if widest is None:
            return
        widths[widest] -= 1


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    shown = (
        _cut(cell, width).rjust(width) if column.right else _cut(cell, width).ljust(width)
        for cell, column, width in zip(cells, columns, widths, strict=True)
    )
    return _GAP.join(shown).rstrip()


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"{cell[: width - 1]}…"


def _printable(cell: str) -> str:
    """In one line, without what would move the cursor or set colours: names are other people's."""
    return "".join(character for character in " ".join(cell.split()) if character.isprintable())


def _wrapped(note: str) -> str:
    room = _room()
    return click.wrap_text(note, (room or 1000) - 1, initial_indent="  ", subsequent_indent="  ")
