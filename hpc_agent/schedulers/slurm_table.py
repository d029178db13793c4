"""Tables of squeue and sacct, read so that no text in a cell, before a row or between rows can be taken for another.

Each cell is followed by a delimiter that is random and new for each call. A job's name is its owner's and may hold line
breaks or look like a row; a site's wrapper may greet before the table: neither can hold the delimiter.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """The rows of one answer, without its header."""

    rows: tuple[tuple[str, ...], ...]
    """Each with one cell a column, without white space at its ends. The first cell should be a job id."""
    complete: bool
    """False: the answer ends within a row, so further rows may be missing."""


def new_delimiter() -> str:
    return f"|{os.urandom(6).hex()}|"


def read_table(text: str, columns: int, delimiter: str) -> Table | None:
    """What a command printed with ``delimiter`` after each cell of ``columns``, header included.

    None: there is neither header nor row, so the command itself gave no answer (a wrapper did, or nothing did), and
    nothing is known, not even that there are no jobs.
    """
    *cells, _ = text.split(delimiter)
    whole = len(cells) - len(cells) % columns
    rows = [_row(cells[start : start + columns]) for start in range(0, whole, columns)]
    if not rows:
        return None
    has_header = not rows[0][0][:1].isdigit()
    return Table(tuple(rows[1:] if has_header else rows), complete=whole == len(cells))


def _row(cells: list[str]) -> tuple[str, ...]:
    first, *rest = cells
    # Before the job id: the line end of the row before, and whatever was printed between them.
    words = first.split()
    return (words[-1] if words else "", *(cell.strip() for cell in rest))
