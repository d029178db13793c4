"""Text that a user wrote, on its way through a template of the site.

It is not a ``str``: what would make it one (``~``, ``%``, ``join``, most filters) fails, so that it cannot get into a
script unquoted. Printing it is put off to the end, when it is known where in the script it is.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, NoReturn

from hpc_agent.errors import TemplateError
from hpc_agent.schedulers.base import ScriptLanguage
from hpc_agent.submission.shell_position import Position, QuotingContext

TEXT_FILTERS = ("capitalize", "center", "format", "lower", "replace", "string", "title", "trim", "truncate", "upper")
"""Filters of Jinja that make one text of another: they keep what a user wrote apart."""

_PLAIN_WORD = re.compile(r"[A-Za-z0-9@%+=:,./_-]+")

LONGEST_TEXT = 30_000
"""Characters: what follows the script up to each text takes a time that grows with the square of its lines."""


class _NoText:
    """Raises when it is made a ``str``."""

    __slots__ = ()

    def _refuse(self, *_: object) -> NoReturn:
        raise TemplateError(
            f"{self._called()} cannot become part of other text in an expression, where it would lose its quoting: "
            f"print it by itself, prefix-{{{{ {self._called()} }}}}; of the filters it knows "
            f"{', '.join(TEXT_FILTERS)}"
        )

    __str__ = __repr__ = __format__ = _refuse

    def _called(self) -> str:
        raise NotImplementedError


class TaskText(_NoText):
    """``name``: what the template calls it. Compares as its text does; slices and sums are such text again."""

    __slots__ = ("name", "text")

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name

    def _called(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return bool(self.text == raw(other))

    def __lt__(self, other: object) -> bool:
        return bool(self.text < raw(other))

    def __hash__(self) -> int:
        return hash(self.text)

    def __bool__(self) -> bool:
        return bool(self.text)

    def __len__(self) -> int:
        return len(self.text)

    def __contains__(self, part: object) -> bool:
        return raw(part) in self.text

    def __getitem__(self, where: int | slice) -> TaskText:
        return TaskText(self.text[where], self.name)

    def __add__(self, other: object) -> TaskText:
        return TaskText(self.text + raw(other), self.name)

    def __radd__(self, other: object) -> TaskText:
        return TaskText(raw(other) + self.text, self.name)

    def __int__(self) -> int:
        return int(self.text)

    def __float__(self) -> float:
        return float(self.text)

    def startswith(self, start: object) -> bool:
        return self.text.startswith(raw(start))

    def endswith(self, end: object) -> bool:
        return self.text.endswith(raw(end))


class ScriptText(_NoText):
    """A rendered part of a script (``set`` block, macro, ``super()``) that holds ``TaskText``."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: Sequence[str | TaskText]) -> None:
        self.pieces = pieces

    def _called(self) -> str:
        return next(piece.name for piece in self.pieces if isinstance(piece, TaskText))


class Printed(str):
    """Placeholder in Jinja's buffers of text that is quoted later. Its own characters are never used."""

    __slots__ = ("pieces",)
    pieces: Sequence[str | TaskText]

    def __str__(self) -> str:
        return self  # Jinja makes a str of all that it prints


def raw(value: Any) -> Any:
    """The plain text of a ``TaskText``, and all else as it is."""
    return value.text if isinstance(value, TaskText) else value


def printed(value: object) -> object:
    """For Jinja's ``finalize``."""
    if not isinstance(value, (TaskText, ScriptText)):
        return value
    kept = Printed()
    kept.pieces = value.pieces if isinstance(value, ScriptText) else [value]
    return kept


def concatenated(parts: Iterable[str | ScriptText]) -> str | ScriptText:
    """For Jinja's ``concat``. What a ``call`` block gives comes without having been printed."""
    pieces: list[str | TaskText] = []
    for part in parts:
        pieces += part.pieces if isinstance(part, (Printed, ScriptText)) else [part]
    return ScriptText(pieces) if any(isinstance(piece, TaskText) for piece in pieces) else "".join(map(str, pieces))


def keeping(text_filter: Callable[..., Any]) -> Callable[..., Any]:
    """``text_filter`` whose result is ``TaskText`` if any of its arguments is."""

    @wraps(text_filter)
    def keeps(*args: Any, **kwargs: Any) -> Any:
        users = [value for value in (*args, *kwargs.values()) if isinstance(value, TaskText)]
        result = text_filter(*map(raw, args), **{name: raw(value) for name, value in kwargs.items()})
        return TaskText(result, users[0].name) if users else result

    return keeps


def written(script: str | ScriptText, language: ScriptLanguage) -> str:
    """The script's text, each piece of a user's quoted for its place.

    Raises:
        TemplateError: it cannot be quoted there.
    """
    if isinstance(script, str):
        return script
    if _needs_no_quotes(script):
        return "".join(map(raw, script.pieces))
    return quoted_by_place(script, language)


def quoted_by_place(script: ScriptText, language: ScriptLanguage) -> str:
    """As ``written``, by following all of the script.

    Raises:
        TemplateError: as ``written``.
    """
    position = Position(language.prefix)
    pieces: list[str] = []
    for piece in script.pieces:
        text = piece if isinstance(piece, str) else quoted(piece, position, language)
        position.advance(text)
        pieces.append(text)
    return "".join(pieces)


def _needs_no_quotes(script: ScriptText) -> bool:
    """Whether each piece of a user's is a plain word, which every place takes as it is, outside of any here-document,
    which a word could end. Most scripts are so, and to follow all of a script takes long for thousands."""
    own = [piece.text for piece in script.pieces if isinstance(piece, TaskText)]
    if not all(_PLAIN_WORD.fullmatch(text) and len(text) <= LONGEST_TEXT for text in own):
        return False
    return "<<" not in "".join(piece for piece in script.pieces if isinstance(piece, str))


def quoted(value: TaskText, position: Position, language: ScriptLanguage) -> str:
    """The text as the script holds it at ``position``.

    Raises:
        TemplateError: it cannot be quoted there.
    """
    refuse_unfit(value.text, f"{value.name} on line {position.line} of the script")
    word = shlex.quote(value.text)
    if position.place is QuotingContext.DIRECTIVE:
        return directive(value.text, language)
    if position.place is QuotingContext.QUOTED and word != value.text:
        raise TemplateError(
            f"{value.name} on line {position.line} of the script is inside quotes, a here-document, ${{}}, $(()), "
            "[] or back-ticks, behind $ or \\, or after what hides its position, where it cannot be quoted safely: "
            "put it alone, earlier in the script, it is quoted by itself"
        )
    if position.may_end_heredoc(word):
        raise TemplateError(
            f"{value.name} on line {position.line} of the script is where the here-document around it could end: "
            "put other text before it on that line"
        )
    return word


def directive(value: object, language: ScriptLanguage) -> str:
    """A value on a line with the scheduler's options, which a line break ends.

    Raises:
        TemplateError: it has a control character, which no option needs and which could add a line of its own; or the
            scheduler knows no quoting for it.
    """
    text = str(value)
    refuse_unfit(text, f"a value on an {language.prefix} line")
    return language.directive(text)


def refuse_unfit(text: str, what: str) -> None:
    """Refuse what no script should hold.

    Raises:
        TemplateError: the text is too long, or has a control character: line and paragraph separators and halves of
            characters, which no file can hold, among them.
    """
    if len(text) > LONGEST_TEXT:
        raise TemplateError(f"{what} holds {len(text)} characters, of which a script takes {LONGEST_TEXT}: shorten it")
    found = next((each for each in text if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")), None)
    if found is not None:
        raise TemplateError(
            f"{what} holds a control character (U+{ord(found):04X}), which could begin a line of its own in it: "
            "rename it without"
        )


def task_texts(values: Mapping[str, str], name: str) -> dict[TaskText, TaskText]:
    """Names that users chose are their text too; a template finds them by plain ones anyway."""
    return {TaskText(key, f"a name in {name}"): TaskText(value, f"{name}.{key}") for key, value in values.items()}
