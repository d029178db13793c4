"""Console text with a terminal's colours as markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from markupsafe import Markup

_SEQUENCE = re.compile(r"\x1b\[([0-?]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_RGB = (
    *((0, 0, 0), (205, 0, 0), (0, 160, 0), (180, 150, 0), (30, 80, 230), (180, 0, 180), (0, 160, 180), (200, 200, 200)),
    *((110, 110, 110), (255, 80, 80), (60, 220, 60), (250, 220, 60), (100, 140, 255), (255, 90, 255), (80, 230, 240)),
    (255, 255, 255),
)
_STEPS = (0, 95, 135, 175, 215, 255)


@dataclass(frozen=True)
class _Style:
    colour: int | None = None
    """0 to 7, and 8 to 15 for the bright ones."""
    background: int | None = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False

    def classes(self) -> str:
        names = [name for name in ("bold", "dim", "italic", "underline") if getattr(self, name)]
        for prefix, colour in (("fg", self.colour), ("bg", self.background)):
            if colour is not None:
                names.append(f"{prefix}-{'bright-' if colour > 7 else ''}{_COLOURS[colour % 8]}")
        return " ".join(f"t-{name}" for name in names)


def console_lines(messages: Iterable[str]) -> str:
    """Chunks as lines, of rewritten ones (progress bars) only the last state; colours are still in it."""
    text = "".join(message if message.endswith("\n") else message + "\n" for message in messages)
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(lines)


def plain_text(text: str) -> str:
    """Lines without a terminal's control codes."""
    return _CONTROLS.sub("", _SEQUENCE.sub("", text))


def coloured(text: str) -> Markup:
    """Lines as markup: colours and weights as classes, every other control code removed."""
    return Markup("").join(_pieces(text))


def _pieces(text: str) -> Iterator[Markup]:
    style, at = _Style(), 0
    for found in _SEQUENCE.finditer(text):
        yield from _piece(style, text[at : found.start()])
        at = found.end()
        if found[2] == "m":
            style = _changed(style, found[1])
    yield from _piece(style, text[at:])


def _piece(style: _Style, text: str) -> Iterator[Markup]:
    shown = _CONTROLS.sub("", text).replace("\x1b", "")
    if shown:
        classes = style.classes()
        yield Markup('<span class="{}">{}</span>').format(classes, shown) if classes else Markup("{}").format(shown)


def _changed(style: _Style, parameters: str) -> _Style:
    """The style after ``ESC [ … m``."""
    codes = [int(code) if code.isdecimal() and len(code) < 4 else 0 for code in parameters.split(";")]
    while codes:
        code = codes.pop(0)
        if code in (38, 48):
            colour = _extended(codes)
            style = replace(style, colour=colour) if code == 38 else replace(style, background=colour)
        else:
            style = _after(style, code)
    return style


def _after(style: _Style, code: int) -> _Style:
    if code == 0:
        return _Style()
    flags = {1: "bold", 2: "dim", 3: "italic", 4: "underline"}
    if code in flags:
        return replace(style, **{flags[code]: True})
    if code in (22, 23, 24):
        off = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",)}[code]
        return replace(style, **dict.fromkeys(off, False))
    for first, bright in ((30, 0), (90, 8)):
        if first <= code <= first + 7:
            return replace(style, colour=code - first + bright)
        if first + 10 <= code <= first + 17:
            return replace(style, background=code - first - 10 + bright)
    if code in (39, 49):
        return replace(style, colour=None) if code == 39 else replace(style, background=None)
    return style


def _extended(codes: list[int]) -> int | None:
    """The colour next to one of 256, or of red, green and blue; takes their numbers off the list."""
    kind = codes.pop(0) if codes else 0
    if kind == 5 and codes:
        number = codes.pop(0)
        if number < 16:
            return number
        if number >= 232:
            level = 8 + 10 * (number - 232)
            return _nearest((level, level, level))
        cube = number - 16
        return _nearest((_STEPS[cube // 36 % 6], _STEPS[cube // 6 % 6], _STEPS[cube % 6]))
    if kind == 2 and len(codes) >= 3:
        red, green, blue, *rest = codes
        codes[:] = rest
        return _nearest((red, green, blue))
    codes.clear()
    return None


def _nearest(colour: tuple[int, int, int]) -> int:
    return min(range(16), key=lambda i: sum((a - b) ** 2 for a, b in zip(colour, _RGB[i], strict=True)))
