"""The text of a pip requirements file taken apart: encoding, lines, options. Pure, and in time linear in the text.

What pip does (``pip._internal.req.req_file``) is done here, so that a file means the same to both.
"""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Iterator

import msgspec

LONGEST_LINE = 4096
"""Characters of one line of a file, and of one requirement without its hashes. Those of real files have a few
hundred; expressions that read requirements need not be trusted with more."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    # Before those of UTF-16, which they begin with.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CODING = re.compile(rb"coding[:=]\s{0,9}([-\w.]{1,40})")
_COMMENT = re.compile(r"(?:^|\s)#.*$")

_SHORT = {"-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-f": "--find-links", "-i": "--index-url"}
_SAME = {"--requirements": "--requirement", "--constraints": "--constraint", "--pypi-url": "--index-url"}
_WITH_VALUE = (
    *("--requirement", "--constraint", "--editable", "--find-links", "--index-url", "--extra-index-url"),
    *("--no-binary", "--only-binary", "--trusted-host", "--use-feature"),
)
INCLUDES = ("--requirement", "--constraint")
"""Options whose value is another requirements file."""
_FLAGS = ("--no-index", "--pre", "--prefer-binary", "--require-hashes")


class LineError(ValueError):
    """A line that pip would not understand, or that is not allowed here; says why, without the line."""


class RequirementOption(msgspec.Struct, frozen=True):
    """``name`` is the long one; ``value`` is empty for a flag."""

    name: str
    value: str = ""

    @property
    def line(self) -> str:
        return f"{self.name} {self.value}".strip()


def decoded(data: bytes, *, errors: str = "replace") -> str:
    """The text of a requirements file, its encoding found as pip finds it; ``errors`` as for ``bytes.decode``."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(encoding, errors)
    for line in data.split(b"\n", 2)[:2]:
        if line.startswith(b"#") and (match := _CODING.search(line[:200])):
            try:
                return data.decode(match[1].decode("ascii"), errors)
            except LookupError:
                break
    return data.decode("utf-8", errors)


def without_comment(line: str) -> str:
    return _COMMENT.sub("", line).strip()


def logical_lines(text: str) -> Iterator[str]:
    """Lines with continuations joined, comments and empty ones left out.

    Raises:
        LineError: a line is longer than ``LONGEST_LINE``.
    """
    pieces: list[str] = []
    # At all that pip splits at, form feeds and U+2028 too: what is one line here must not be two for it.
    for line in text.removeprefix("\ufeff").splitlines():
        if len(line) > LONGEST_LINE:
            raise LineError(f"it has {len(line)} characters, and {LONGEST_LINE} are allowed")
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            pieces.append(line[:-1])
            continue
        if plain := without_comment(" ".join([*pieces, line])):
            yield plain
        pieces = []
    if pieces and (plain := without_comment(" ".join(pieces))):
        yield plain


def options_of(line: str) -> tuple[RequirementOption, ...]:
    """The options of a logical line, quotes taken off; none for a requirement.

    Raises:
        LineError: an option that requirements files do not have, one without its value, or a quote that does not end.
    """
    if not line.startswith("-"):
        return ()
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise LineError(str(error).lower()) from error
    found: list[RequirementOption] = []
    while words:
        name, value = _parted(words.pop(0))
        if name in _FLAGS and value is None:
            found.append(RequirementOption(name))
        elif name in _WITH_VALUE and (value is not None or words):
            value = words.pop(0) if value is None else value
            if name not in (*INCLUDES, "--editable") and re.search(r"\s", value):
                # The line is written to a file, where a second option could follow.
                raise LineError(f"the value of {name} has white space in it")
            found.append(RequirementOption(name, value))
        else:
            raise LineError(_unusable(name))
    return tuple(found)


def _parted(word: str) -> tuple[str, str | None]:
    """``-rfile``, ``--requirement=file`` and ``-r`` as long name and value, None where there is none in the word."""
    if word[:2] in _SHORT and not word.startswith("--"):
        return _SHORT[word[:2]], word[2:].removeprefix("=") or None
    name, equals, value = word.partition("=")
    return _SAME.get(name, name), value if equals else None


def _unusable(name: str) -> str:
    if name in _WITH_VALUE:
        return f"{name} needs a value"
    if not name.startswith("-"):
        return f"{name!r} follows an option and is none: pip allows options only there"
    return f"pip knows no such option in a requirements file: {name}"


def requirement_and_hashes(line: str) -> tuple[str, tuple[str, ...]]:
    """A requirement line without its ``--hash`` options, and their values, sorted.

    Raises:
        LineError: it has other options, or is too long without the hashes.
    """
    requirement: list[str] = []
    hashes: list[str] = []
    words = iter(line.split())
    for word in words:
        if word.startswith("--hash"):
            value = word.removeprefix("--hash").removeprefix("=") or next(words, "").removeprefix("=")
            hashes.append(value.strip("\"'"))
        elif word.startswith("--") and requirement:
            raise LineError(f"the option {word.partition('=')[0]} of a requirement is not used here")
        else:
            requirement.append(word)
    bare = " ".join(requirement)
    if bare.startswith("-"):
        raise LineError(f"{requirement[0]!r} is where a requirement is expected")
    if len(bare) > LONGEST_LINE:
        raise LineError(f"it has {len(bare)} characters, and {LONGEST_LINE} are allowed")
    return bare, tuple(sorted(hashes))
