"""Tables of squeue and sacct, read so that no text in a cell, before a row or between rows can be taken for another.

Each cell is followed by a delimiter that is random and new for each call. A job's name is its owner's and may hold line
breaks or look like a row; a site's wrapper may greet before the table: neither can hold the delimiter.
"""

from __future__ import annotations

import os
import re

import msgspec


class SlurmTable(msgspec.Struct, frozen=True):
    """The rows of one answer, without its header."""

    rows: tuple[tuple[str, ...], ...]
    """Each with one cell a column, without white space at its ends. The first cell should be a job id."""
    broken: int
    """Incomplete rows. After one at the end of the answer any number may be missing."""


def new_delimiter() -> str:
    return f"|{os.urandom(6).hex()}|"


def read_table(answer: str, columns: int, delimiter: str) -> SlurmTable | None:
    """What a command printed with ``delimiter`` after each cell of ``columns``, header included.

    Only the last column may hold line breaks: in any other one they tell that a row was cut short.

    None: there is neither header nor row, so the command itself gave no answer (a wrapper did, or nothing did), and
    nothing is known, not even that there are no jobs.
    """
    *cells, rest = answer.split(delimiter)
    rows: list[tuple[str, ...]] = []
    row: list[str] = []
    broken = 0
    for cell in cells:
        if 0 < len(row) < columns - 1 and "\n" in cell:
            broken += 1
            row = []
        row.append(cell if row else _last_word(cell))
        if len(row) == columns:
            rows.append(tuple(text.strip() for text in row))
            row = []
    if not rows:
        return None
    if row or _begins_row(rest, delimiter):
        broken += 1
    return SlurmTable(tuple(rows[1:] if _is_header(rows[0]) else rows), broken)


def _last_word(text: str) -> str:
    """Before a job id: the line end of the row before, and whatever was printed between them."""
    return text.split()[-1] if text.strip() else ""


def _is_header(row: tuple[str, ...]) -> bool:
    return row[0].upper().endswith("JOBID")


def _begins_row(rest: str, delimiter: str) -> bool:
    """Whether what follows the last delimiter may be a row that was cut within its job id or right behind it.

    A wrapper's last words need no line end either (``Total: 2 jobs``, a colour's ``\\x1b[0m``); they end otherwise.
    """
    cut = rest.rpartition("\n")[2]
    for length in range(len(delimiter) - 1, 0, -1):
        if cut.endswith(delimiter[:length]):
            return True
    return bool(re.fullmatch(r"[0-9][0-9_+%,:.\[\]-]*", _last_word(cut)))
