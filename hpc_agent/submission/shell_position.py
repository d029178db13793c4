"""Where in a bash script a piece of text stands, and so how it must be quoted there. Pure.

Follows the script up to that place as bash reads it, and errs on the side of ``Place.QUOTED``: where it does not know
better, text that is no plain word is refused there, never let through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

_DIRECTIVE = "#SBATCH"
_HEREDOC = re.compile(r"(-?)[ \t]*(?:'([^']+)'|\"([^\"]+)\"|\\?([A-Za-z_][\w.-]*))")
_CASE = re.compile(r"\bcase\b")


class Place(Enum):
    CODE = auto()
    """Where a word may begin or go on; comments too."""
    DIRECTIVE = auto()
    """A line of options for sbatch, which has rules of its own."""
    QUOTED = auto()
    """Inside quotes, a here-document, ``${}``, ``$(())`` or back-ticks, or behind ``\\`` or ``$``: quotes of its own
    would be none there."""


class _Frame(Enum):
    CODE = auto()
    SINGLE = auto()
    ANSI = auto()
    """``$'…'``."""
    DOUBLE = auto()
    BACKTICK = auto()
    BRACE = auto()
    ARITHMETIC = auto()
    COMMENT = auto()
    DIRECTIVE = auto()
    DIRECTIVE_QUOTE = auto()


@dataclass(frozen=True)
class _Heredoc:
    """``delimiter``: None where it cannot be told; then it never ends."""

    delimiter: str | None
    strips_tabs: bool


class Position:
    """``advance`` over the script piece by piece; ``place`` is where the next one stands, ``line`` counts from 1."""

    def __init__(self) -> None:
        self.line = 1
        self._frames = [_Frame.CODE]
        self._text = ""
        """The line so far."""
        self._escaped = False
        self._quote = ""
        """The quote that a directive's word began with."""
        self._announced: list[int] = []
        """Where in ``_text`` the delimiters of here-documents begin."""
        self._heredocs: list[_Heredoc] = []
        """Those whose bodies come now, the first one first."""
        self._is_lost = False

    @property
    def place(self) -> Place:
        top = self._frames[-1]
        if self._escaped or self._text.endswith("$") or self._heredocs or self._is_lost:
            return Place.QUOTED
        if {_Frame.BACKTICK, _Frame.BRACE, _Frame.ARITHMETIC} & set(self._frames):
            return Place.QUOTED
        if top is _Frame.DIRECTIVE:
            return Place.DIRECTIVE
        return Place.CODE if top in (_Frame.CODE, _Frame.COMMENT) else Place.QUOTED

    def advance(self, text: str) -> None:
        for character in text:
            if character == "\n":
                self._end_line()
            elif self._heredocs:
                self._text += character
            else:
                self._step(character)
                self._text += character

    def _step(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
            return
        top = self._frames[-1]
        if top in (_Frame.COMMENT, _Frame.SINGLE):
            self._in_plain_text(top, character)
        elif top in (_Frame.DIRECTIVE, _Frame.DIRECTIVE_QUOTE):
            self._in_directive(character)
        elif character == "\\":
            self._escaped = True
        elif top is _Frame.ANSI:
            self._pop_on("'", character)
        elif top is _Frame.BACKTICK:
            self._pop_on("`", character)
        else:
            self._in_expansions(top, character)

    def _in_plain_text(self, top: _Frame, character: str) -> None:
        if top is _Frame.SINGLE:
            self._pop_on("'", character)
        elif self._text + character == _DIRECTIVE:
            self._frames[-1] = _Frame.DIRECTIVE

    def _in_directive(self, character: str) -> None:
        if character == "\\":
            self._escaped = True
        elif self._frames[-1] is _Frame.DIRECTIVE and character in "'\"":
            self._quote = character
            self._frames.append(_Frame.DIRECTIVE_QUOTE)
        elif self._frames[-1] is _Frame.DIRECTIVE_QUOTE and character == self._quote:
            self._frames.pop()

    def _pop_on(self, closing: str, character: str) -> None:
        if character == closing:
            self._frames.pop()

    def _in_expansions(self, top: _Frame, character: str) -> None:
        """In code, double quotes and braces, each of which may hold the others."""
        before = self._text[-1:]
        if character == "`":
            self._frames.append(_Frame.BACKTICK)
        elif character == '"':
            self._pop_or_push(top, _Frame.DOUBLE)
        elif character == "'" and _Frame.DOUBLE not in self._frames[-2:]:
            self._frames.append(_Frame.ANSI if before == "$" else _Frame.SINGLE)
        elif character == "{" and before == "$":
            self._frames.append(_Frame.BRACE)
        elif character == "}" and top is _Frame.BRACE:
            self._frames.pop()
        elif character == "(":
            self._open_parenthesis(top, before)
        elif top in (_Frame.CODE, _Frame.ARITHMETIC):
            self._in_code(top, character, before)

    def _pop_or_push(self, top: _Frame, frame: _Frame) -> None:
        if top is frame:
            self._frames.pop()
        else:
            self._frames.append(frame)

    def _open_parenthesis(self, top: _Frame, before: str) -> None:
        if top in (_Frame.CODE, _Frame.ARITHMETIC) and before == "(":
            self._frames[-1:] = [_Frame.ARITHMETIC, _Frame.ARITHMETIC]
        elif top in (_Frame.CODE, _Frame.ARITHMETIC) or before == "$":
            self._frames.append(_Frame.CODE)

    def _in_code(self, top: _Frame, character: str, before: str) -> None:
        if character == ")" and len(self._frames) > 1:
            # The parentheses of its patterns close nothing.
            self._is_lost = self._is_lost or bool(_CASE.search(self._text))
            self._frames.pop()
        elif character == "#" and (not before or before in " \t;&|("):
            self._frames.append(_Frame.COMMENT)
        elif character == "<" and before == "<" and top is _Frame.CODE:
            self._announce_heredoc()

    def _announce_heredoc(self) -> None:
        if self._announced and self._announced[-1] == len(self._text):
            self._announced.pop()  # <<< is a word
        elif not self._text.endswith("<<"):
            self._announced.append(len(self._text) + 1)

    def _end_line(self) -> None:
        self.line += 1
        if self._heredocs:
            self._end_heredoc_line()
        elif self._escaped:
            self._escaped = False
            return  # the line goes on
        else:
            while self._frames[-1] in (_Frame.COMMENT, _Frame.DIRECTIVE, _Frame.DIRECTIVE_QUOTE):
                self._frames.pop()
            self._heredocs = [_heredoc(self._text[at:]) for at in self._announced]
        self._announced = []
        self._text = ""

    def _end_heredoc_line(self) -> None:
        heredoc = self._heredocs[0]
        if (self._text.lstrip("\t") if heredoc.strips_tabs else self._text) == heredoc.delimiter:
            self._heredocs.pop(0)


def _heredoc(text: str) -> _Heredoc:
    match = _HEREDOC.match(text)
    return _Heredoc(match[2] or match[3] or match[4], bool(match[1])) if match else _Heredoc(None, False)
