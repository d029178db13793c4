"""Tables and colours for a terminal: columns that fit its width, colour that switches itself off."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

_GAP = "  "
_NARROWEST = 8
"""A column that is cut keeps this many characters."""


def styled(text: str, **style: Any) -> str:
    """As ``click.style``; plain where NO_COLOR is set. In a pipe ``click.echo`` takes colours out itself."""
    return text if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else click.style(text, **style)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Lines with the cells of ``rows`` below those of ``head``, in columns. Columns that are empty throughout are left
    out; ``right``: those that are aligned there, by their head. On a terminal cells are cut to fit, the last column's
    first.
    """
    columns = [index for index in range(len(head)) if any(row[index] for row in rows)]
    widths = [max(len(row[index]) for row in (head, *rows)) for index in columns]
    _fit(widths)
    lines = []
    for number, row in enumerate((head, *rows)):
        cells = [_cell(row[index], width, head[index] in right) for index, width in zip(columns, widths, strict=True)]
        line = _GAP.join(cells).rstrip()
        lines.append(styled(line, bold=True) if number == 0 else line)
    return "\n".join(lines)


def _cell(text: str, width: int, right: bool) -> str:
    shown = text if len(text) <= width else text[: width - 1] + "…"
    return shown.rjust(width) if right else shown.ljust(width)


def _fit(widths: list[int]) -> None:
    """Narrow columns until all fit the terminal. A pipe has no width, unless COLUMNS gives one."""
    if not (widths and (sys.stdout.isatty() or os.environ.get("COLUMNS"))):
        return
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - shutil.get_terminal_size().columns
    while excess > 0 and max(widths) > _NARROWEST:
        widths[-1 if widths[-1] > _NARROWEST else widths.index(max(widths))] -= 1
        excess -= 1
