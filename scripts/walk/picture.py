"""Picture of a terminal as SVG: text in the colours that a program gave it, nothing else."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

_STYLE = re.compile(r"\x1b\[([0-9;]*)m")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")
_COLOURS = {31: "#f47067", 32: "#57ab5a", 33: "#c69026", 34: "#539bf5", 36: "#39c5cf"}
_PLAIN, _BRIGHT, _DIM, _GROUND = "#cdd9e5", "#ffffff", "#909dab", "#22272e"
_WIDTH, _HEIGHT, _EDGE = 8.4, 18, 14
"""Pixels of a character at a size of 14, of a line, and around the text."""


def svg(output: str, columns: int) -> str:
    """``output``: what a program printed on a terminal, with its escape sequences."""
    texts, rows = [], 0
    for line in output.strip("\r\n").replace("\r\n", "\n").split("\n"):
        end = 0
        for column, text, attributes in _runs(_last_state(line)):
            for begin in range(column - column % columns, column + len(text), columns):
                part = text[max(begin - column, 0) : begin + columns - column]
                x = _EDGE + max(column - begin, 0) * _WIDTH
                y = _EDGE + (rows + begin // columns + 1) * _HEIGHT - 4
                texts.append(f'<text x="{x:.1f}" y="{y}"{attributes}>{html.escape(part, quote=False)}</text>')
            end = column + len(text) - 1
        rows += 1 + end // columns
    width, height = round(columns * _WIDTH + 2 * _EDGE), rows * _HEIGHT + 2 * _EDGE
    font = 'font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"',
            '     xml:space="preserve">',
            f'<rect width="{width}" height="{height}" rx="8" fill="{_GROUND}"/>',
            f'<g {font} fill="{_PLAIN}">',
            *texts,
            "</g>",
            "</svg>\n",
        ]
    )


def _last_state(line: str) -> str:
    """Without the progress that a line showed before."""
    for part in reversed(line.split("\r")):
        if plain := _STYLE.sub("", _CONTROL.sub("", part)):
            return part if plain.strip() else ""
    return ""


def _runs(line: str) -> Iterator[tuple[int, str, str]]:
    """Pieces of one style: column, text, attributes. Words far apart are pieces too, so that columns stay in line."""
    colour, bold, column = "", False, 0
    for number, piece in enumerate(_STYLE.split(_CONTROL.sub("", line))):
        if number % 2:
            for code in [int(code or 0) for code in piece.split(";")]:
                bold = code == 1 or (bold and code != 0)
                colour = "" if code == 0 else _DIM if code == 2 else _COLOURS.get(code, colour)
            continue
        shown = colour or (_BRIGHT if bold else "")
        attributes = (f' fill="{shown}"' if shown else "") + (' font-weight="bold"' if bold else "")
        for found in re.finditer(r"\S+(?: \S+)*", piece):
            yield column + found.start(), found[0], attributes
        column += len(piece)
