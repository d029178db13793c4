"""Position of a piece of text in a bash script, and so how it must be quoted there. Pure.

Follows the script up to that place as bash reads it, and errs on the side of
``QuotingContext.QUOTED``: where it does not know
better, text that is not a plain word is refused there, never let through.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import msgspec

_HEREDOC = re.compile(r"(-?)[ \t]*(?:'([^']+)'|\"([^\"]+)\"|(\\?)([A-Za-z_][\w.-]*))(?=[\s;&|<>()]|$)")
_CASE = re.compile(r"\bcase$")
_TEST = re.compile(r"(?:^|[\s;&|(!])\[$")
"""The command of that name; ``name[`` begins an index."""
_PIECES = re.compile(r"[A-Za-z0-9_./:,=+@%-]+|[\s\S]")
"""Runs of what begins and ends nothing, and single characters."""
_SEPARATORS = " \t;&|()<>"
"""After these a word begins."""


class QuotingContext(Enum):
    CODE = auto()
    """Where a word may begin or go on; comments too."""
    DIRECTIVE = auto()
    """A line of options for the scheduler, which has rules of its own."""
    QUOTED = auto()
    """Inside quotes, a here-document, ``${}``, ``$(())``, an index in ``[]`` or back-ticks, or behind ``\\`` or ``$``:
    quotes of its own would be none there."""


class _Frame(Enum):
    CODE = auto()
    SINGLE = auto()
    ANSI = auto()
    """``$'…'``."""
    DOUBLE = auto()
    BACKTICK = auto()
    BRACE = auto()
    ARITHMETIC = auto()
    INDEX = auto()
    """``name[…]``, where bash expands again what was in quotes."""
    COMMENT = auto()
    DIRECTIVE = auto()
    DIRECTIVE_QUOTE = auto()


_OPAQUE = frozenset({_Frame.BACKTICK, _Frame.BRACE, _Frame.ARITHMETIC, _Frame.INDEX})
"""Quotes mean something else there, or nothing."""


class _Heredoc(msgspec.Struct, frozen=True):
    """``delimiter``: None where it is not known; then it never ends. ``joins_lines``: those that end in ``\\``."""

    delimiter: str | None
    strips_tabs: bool = False
    joins_lines: bool = False


class Position:
    """``advance`` over the script piece by piece; ``place`` is the position of the next one, ``line`` counts from 1."""

    def __init__(self, directive: str) -> None:
        """``directive``: what a line of options begins with."""
        self.line = 1
        self._directive = directive
        self._frames = [_Frame.CODE]
        self._text = ""
        """The line so far."""
        self._before = ""
        """The last character that may mean something together with the next one; empty where a line begins."""
        self._escaped = False
        self._quote = ""
        """The quote that a directive's word began with."""
        self._announced: list[int] = []
        """Where in ``_text`` the delimiters of here-documents begin."""
        self._waiting: list[_Heredoc] = []
        """Those whose bodies come after the line that announced them."""
        self._heredocs: list[_Heredoc] = []
        """Those whose bodies come now, the first one first."""
        self._has_case = False
        """Whether a ``case`` is inside parentheses: those of its patterns close nothing."""
        self._is_lost = False

    @property
    def place(self) -> QuotingContext:
        top = self._frames[-1]
        if self._escaped or self._before == "$" or self._heredocs or self._is_lost or _OPAQUE & set(self._frames):
            return QuotingContext.QUOTED
        if top is _Frame.DIRECTIVE:
            return QuotingContext.DIRECTIVE
        return QuotingContext.CODE if top in (_Frame.CODE, _Frame.COMMENT) else QuotingContext.QUOTED

    @property
    def command_line(self) -> str:
        """The line up to here, with those before it that it continues."""
        return self._text

    @property
    def is_comment(self) -> bool:
        return self._frames[-1] is _Frame.COMMENT and not self._heredocs

    @property
    def is_top_level(self) -> bool:
        """Whether a command could begin or go on here that is inside of nothing else."""
        return self._frames == [_Frame.CODE] and not self._heredocs and not self._is_lost

    @property
    def quotes(self) -> str:
        """The quotes around this place, where ``\\`` means in them what it means in any others; else empty."""
        top = self._frames[-1]
        if self._escaped or self._before == "$" or self._heredocs or self._is_lost or _OPAQUE & set(self._frames):
            return ""
        if top is _Frame.DIRECTIVE_QUOTE:
            return self._quote
        return {_Frame.DOUBLE: '"', _Frame.SINGLE: "'"}.get(top, "")

    @property
    def is_directive(self) -> bool:
        return self._frames[-1] in (_Frame.DIRECTIVE, _Frame.DIRECTIVE_QUOTE)

    def may_end_heredoc(self, text: str) -> bool:
        """Whether the here-document could end on this line if ``text`` were here."""
        heredoc = self._heredocs[0] if self._heredocs else None
        return heredoc is not None and (heredoc.delimiter or "").startswith(_body_line(heredoc, self._text + text))

    def advance(self, text: str) -> None:
        for piece in _PIECES.findall(text):
            if piece == "\n":
                self._end_line()
            elif self._heredocs:
                self._text += piece
            elif len(piece) > 1 and self._is_inert:
                self._text += piece
                self._before = piece[-1]
            else:
                for character in piece:
                    self._step(character)
                    self._text += character

    @property
    def _is_inert(self) -> bool:
        """Whether a run of plain characters changes nothing here."""
        # A comment that begins so is a line of options.
        may_become_directive = self._frames[-1] is _Frame.COMMENT and len(self._text) < len(self._directive)
        return not self._escaped and not may_become_directive

    def _step(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
            self._before = "\\"
            return
        top = self._frames[-1]
        if top in (_Frame.COMMENT, _Frame.SINGLE):
            self._in_plain_text(top, character)
        elif top in (_Frame.DIRECTIVE, _Frame.DIRECTIVE_QUOTE):
            self._in_directive(character)
        elif character == "\\":
            self._escaped = True
            return  # what came before still counts if this only joins two lines
        elif top is _Frame.ANSI:
            self._pop_on("'", character)
        elif top is _Frame.BACKTICK:
            self._pop_on("`", character)
        else:
            self._in_expansions(top, character)
        # ``$$`` is a number, and nothing begins with its second half.
        self._before = "\\" if character == self._before == "$" else character

    def _in_plain_text(self, top: _Frame, character: str) -> None:
        if top is _Frame.SINGLE:
            self._pop_on("'", character)
        elif self._text + character == self._directive:
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
        """In code, double quotes, braces and indices, each of which may hold the others."""
        if character == "`":
            self._frames.append(_Frame.BACKTICK)
        elif character == '"':
            self._pop_or_push(top, _Frame.DOUBLE)
        elif character == "'":
            self._open_single_quote(top)
        elif character == "{" and self._before == "$":
            self._frames.append(_Frame.BRACE)
        elif character == "}" and top is _Frame.BRACE:
            self._frames.pop()
        elif character == "(":
            self._open_parenthesis(top)
        elif character in "[]":
            self._at_bracket(top, character)
        elif top is _Frame.INDEX:
            if character.isspace() and self._before == "[" and _TEST.search(self._text):
                self._frames.pop()
        elif top in (_Frame.CODE, _Frame.ARITHMETIC):
            self._in_code(top, character)

    def _pop_or_push(self, top: _Frame, frame: _Frame) -> None:
        if top is frame:
            self._frames.pop()
        else:
            self._frames.append(frame)

    def _open_single_quote(self, top: _Frame) -> None:
        if top is _Frame.DOUBLE:
            return
        if top is not _Frame.CODE and _Frame.DOUBLE in self._frames:
            # In ``"${x#'"'}"`` it quotes, in ``"${x:-'"'}"`` it does not.
            self._is_lost = True
        self._frames.append(_Frame.ANSI if self._before == "$" else _Frame.SINGLE)

    def _open_parenthesis(self, top: _Frame) -> None:
        if top in (_Frame.CODE, _Frame.ARITHMETIC) and self._before == "(":
            self._frames[-1:] = [_Frame.ARITHMETIC, _Frame.ARITHMETIC]
        elif top in (_Frame.CODE, _Frame.ARITHMETIC) or self._before == "$":
            self._frames.append(_Frame.CODE)

    def _at_bracket(self, top: _Frame, character: str) -> None:
        if character == "]":
            if top is _Frame.INDEX:
                self._frames.pop()
        elif self._before == "$":
            self._is_lost = True  # ``$[…]``, which computes
        elif top is _Frame.INDEX and self._before == "[":
            self._frames.pop()  # ``[[``
        elif top in (_Frame.CODE, _Frame.INDEX):
            self._frames.append(_Frame.INDEX)

    def _in_code(self, top: _Frame, character: str) -> None:
        if character == ")" and len(self._frames) > 1:
            self._is_lost = self._is_lost or self._has_case
            self._frames.pop()
        elif character == "#" and (not self._before or self._before in _SEPARATORS):
            # Whether ``)#`` goes on with a word depends on what the parenthesis closes.
            self._is_lost = self._is_lost or top is _Frame.ARITHMETIC or self._before == ")"
            self._frames.append(_Frame.COMMENT)
        elif character == "<" and self._before == "<" and _Frame.ARITHMETIC not in self._frames:
            self._announce_heredoc()
        elif character.isspace() and len(self._frames) > 1 and _CASE.search(self._text):
            self._has_case = True

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
            self._escaped = False  # the line goes on
        else:
            self._end_line_of_code()

    def _end_line_of_code(self) -> None:
        while self._frames[-1] in (_Frame.COMMENT, _Frame.DIRECTIVE, _Frame.DIRECTIVE_QUOTE):
            self._frames.pop()
        if self._frames[-1] is _Frame.CODE and len(self._frames) > 1 and _CASE.search(self._text):
            self._has_case = True
        self._waiting += [_heredoc(self._text[at:]) for at in self._announced]
        self._announced = []
        if self._frames[-1] is _Frame.CODE:
            self._heredocs, self._waiting = self._waiting, []
        self._text = ""
        self._before = ""

    def _end_heredoc_line(self) -> None:
        heredoc = self._heredocs[0]
        line = _body_line(heredoc, self._text)
        if heredoc.joins_lines and (len(line) - len(line.rstrip("\\"))) % 2:
            self._text = self._text[:-1]
            return
        if line == heredoc.delimiter:
            self._heredocs.pop(0)
        self._text = ""


def _body_line(heredoc: _Heredoc, text: str) -> str:
    return text.lstrip("\t") if heredoc.strips_tabs else text


def _heredoc(text: str) -> _Heredoc:
    match = _HEREDOC.match(text)
    if not match:
        return _Heredoc(None)
    is_quoted = bool(match[2] or match[3] or match[4])
    return _Heredoc(match[2] or match[3] or match[5], bool(match[1]), not is_quoted)
