"""The text of ``git diff`` taken apart, in one pass over its lines. Pure; git itself decides what can be applied.

People's git settings shape what their SDK recorded: colours, prefixes, submodules, binary files without content. What
``git apply`` would pass over without a word is named in ``Patch.notes`` here, or refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")
_HUNK = re.compile(r"@@ -\d{1,9}(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@")
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
_HEADER = "diff --git "
_MERGE = ("diff --cc ", "diff --combined ", "* Unmerged path ")
_NO_FILE = "/dev/null"
_GITLINK = re.compile(r"(?:index [0-9a-f]{1,64}\.\.[0-9a-f]{1,64}|new file mode|deleted file mode) 160000\s*$")
_BINARY = "the change of a binary file is left out (git diff records no content of them: commit and push it)"
_SUBMODULE = "the change of a submodule to another commit is left out (commit and push it)"


class PatchError(ValueError):
    """Why a text cannot be applied, in a few words."""


@dataclass
class _Section:
    """The part of a patch about one file; names are relative to the root, empty where there is none."""

    lines: list[str] = field(default_factory=list)
    header: str = ""
    old: str = ""
    new: str = ""
    created: bool = False
    renamed: bool = False
    why_left_out: str = ""


@dataclass(frozen=True)
class Patch:
    """``text`` is for ``git apply -p<strip>``; empty where nothing of it can be applied.

    ``old``: files named on its old side; ``new``: on its new side; ``created``: those of them that it makes.
    ``notes``: sentences on what of the changes is not in ``text``.
    """

    text: str
    strip: int = 1
    old: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    created: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> frozenset[str]:
        return frozenset((*self.old, *self.new))


def plain(text: str) -> str:
    """``text`` without a byte order mark, and without the colours of a terminal where its header lines have them."""
    text = text.removeprefix("\ufeff")
    if "\x1b[" not in text or _begins_line(text, _HEADER):
        return text
    bare = _COLOUR.sub("", text)
    return bare if looks_like_patch(bare) else text


def looks_like_patch(text: str) -> bool:
    """Whether some line of ``text`` is one that only patches have."""
    return _begins_line(text, _HEADER) or any(_begins_line(text, mark) for mark in _MERGE) or _has_plain_header(text)


def begins_like_patch(text: str) -> bool:
    """Whether the first line that says anything is one that only patches have."""
    first, _, rest = text.lstrip().partition("\n")
    lowered = first.lower()
    return lowered.startswith(("diff -", *_MERGE)) or (lowered.startswith("submodule ") and looks_like_patch(rest))


def _begins_line(text: str, words: str) -> bool:
    return text.startswith(words) or f"\n{words}" in text


def _has_plain_header(text: str) -> bool:
    """``---``, ``+++`` and ``@@`` on three lines, as diff(1) prints them."""
    lines = text.split("\n")
    return any(
        old.startswith("--- ") and new.startswith("+++ ") and _HUNK.match(hunk)
        for old, new, hunk in zip(lines, lines[1:], lines[2:], strict=False)
    )


def parse(text: str) -> Patch:
    """
    Raises:
        PatchError: it holds what git cannot apply, such as the conflicts of a merge.
    """
    sections, submodules = _sections(plain(text))
    strip = _strip(sections)
    for section in sections:
        if not section.renamed:
            section.old, section.new = (_stripped(name, strip) for name in (section.old, section.new))
    kept = [section for section in sections if not section.why_left_out]
    left_out = [section for section in sections if section.why_left_out]
    changed = {section.new or section.old for section in sections}
    return Patch(
        "".join(line for section in kept for line in section.lines),
        strip,
        tuple(dict.fromkeys(section.old for section in kept if section.old)),
        tuple(dict.fromkeys(section.new for section in kept if section.new)),
        frozenset(section.new for section in kept if section.created and section.new),
        (
            *(note for line in submodules if (note := _on_submodule(line, changed))),
            *(f"{section.why_left_out}: {section.new or section.old or section.header}" for section in left_out),
        ),
    )


def _sections(text: str) -> tuple[list[_Section], list[str]]:
    """The sections of a patch, and the lines on submodules between them."""
    sections: list[_Section] = []
    submodules: list[str] = []
    old_left = new_left = 0
    lines = _split(text)
    for number, line in enumerate(lines):
        if (old_left > 0 or new_left > 0) and not line.startswith(_HEADER):
            old_left -= line[:1] not in ("+", "\\")
            new_left -= line[:1] not in ("-", "\\")
            sections[-1].lines.append(line)
            continue
        if line.startswith(_MERGE):
            raise PatchError(f"they hold the conflicts of a merge ({line.strip()[:200]}): resolve and commit them")
        if line.startswith(_HEADER):
            sections.append(_begin(line))
        elif line.startswith("--- ") and lines[number + 1 : number + 2] and lines[number + 1].startswith("+++ "):
            if not sections or sections[-1].lines[-1].startswith(("+", "-", " ", "\\", "@")):
                sections.append(_Section())  # diff(1) prints no other header
            if not (sections[-1].created or sections[-1].renamed):
                sections[-1].old = _name(line)
        elif line.startswith("Submodule "):
            submodules.append(line)
            continue
        elif not sections:
            continue  # a warning, a mail's head
        _look_at(line, sections[-1])
        sections[-1].lines.append(line)
        if hunk := _HUNK.match(line):
            old_left, new_left = (int(count) if count else 1 for count in hunk.groups())
    return sections, submodules


def _split(text: str) -> list[str]:
    """At line feeds only: the text of a file may hold what Python takes for line ends."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _begin(line: str) -> _Section:
    old, new = _names_of_header(line)
    return _Section(header=line.strip(), old=old, new=new)


def _names_of_header(line: str) -> tuple[str, str]:
    """Both names of ``diff --git a/x b/x``, where they are the same but for the prefix; they may have blanks."""
    rest = line[len(_HEADER) :].rstrip("\r\n")
    if rest.startswith('"'):
        end = _quote_end(rest)
        return _name(f"--- {rest[:end]}"), _name(f"+++ {rest[end:].strip()}")
    middle = len(rest) // 2
    old, new = rest[:middle], rest[middle + 1 :]
    return (old, new) if rest[middle : middle + 1] == " " and _base(old) == _base(new) else ("", "")


def _base(name: str) -> str:
    """The part that both sides share: all behind a prefix of one letter."""
    return name[2:] if name[1:2] == "/" else name


def _quote_end(text: str) -> int:
    """The index behind the quoted word that ``text`` begins with."""
    index = 1
    while index < len(text) and text[index] != '"':
        index += 2 if text[index] == "\\" else 1
    return index + 1


def _look_at(line: str, section: _Section) -> None:
    """Take what a header line says of its file."""
    if line.startswith("+++ ") and not section.renamed:
        section.new = _name(line)
    elif line.startswith("new file mode "):
        section.created, section.old = True, ""
    elif line.startswith("deleted file mode "):
        section.new = ""
    elif line.startswith(("rename from ", "copy from ")):
        section.renamed, section.old = True, _name("--- " + line.split(" from ", 1)[1])
    elif line.startswith(("rename to ", "copy to ")):
        section.renamed, section.new = True, _name("+++ " + line.split(" to ", 1)[1])
    elif line.startswith("Binary files ") and line.rstrip().endswith(" differ"):
        section.why_left_out = _BINARY
    if _GITLINK.match(line):
        section.why_left_out = _SUBMODULE


def _name(line: str) -> str:
    """The name behind ``---`` or ``+++``, its prefix still on it; empty for none."""
    text = line[4:].rstrip("\r\n")
    quoted = text.startswith('"')
    name = _unquoted(text[1 : _quote_end(text) - 1]) if quoted else text.partition("\t")[0].rstrip()
    return "" if name == _NO_FILE else name


def _strip(sections: list[_Section]) -> int:
    """How many components ``git apply`` takes off the names: none where ``diff.noprefix`` left the prefixes out."""
    both = [(section.old, section.new) for section in sections if section.old and section.new and section.header]
    return 0 if both and all(old == new for old, new in both) else 1


def _stripped(name: str, strip: int) -> str:
    return name.partition("/")[2] if strip else name


def _on_submodule(line: str, changed: set[str]) -> str:
    """A note on ``Submodule lib 1111..2222:``, unless the changes below it are in the patch."""
    words = line.split()
    if len(words) < 3 or ".." not in words[2] or any(name.startswith(f"{words[1]}/") for name in changed):
        return ""
    return f"{_SUBMODULE}: {words[1]}"


def _unquoted(name: str) -> str:
    """git's C-style quoting of unusual names undone."""

    def character(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) & 0xFF]) if len(code) == 3 else _ESCAPED.get(code, code)

    return _ESCAPE.sub(character, name.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
