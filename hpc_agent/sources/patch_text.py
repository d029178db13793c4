"""The text of ``git diff`` taken apart, in one pass over its lines. Pure; git itself decides what can be applied.

People's git settings shape what their SDK recorded: colours, prefixes, submodules, binary files without content. What
``git apply`` would silently skip is named in ``Patch.notes`` here, or refused.
"""

from __future__ import annotations

import posixpath
import re

import msgspec
from msgspec.structs import replace

_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")
_HUNK = re.compile(r"@@ -\d{1,9}(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@")
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
_HEADER = "diff --git "
_CRLF_HEADER = re.compile(r"^(?:diff --git |\+\+\+ )[^\n]{1,8000}\r\n", re.MULTILINE)
_LF = "\n"
_MERGE = ("diff --cc ", "diff --combined ", "* Unmerged path ")
_NO_FILE = "/dev/null"
_GITLINK = re.compile(r"(?:index [0-9a-f]{1,64}\.\.[0-9a-f]{1,64}|new file mode|deleted file mode) 160000\s*$")
_ON_SUBMODULE = re.compile(
    r"Submodule (?P<name>\S.{0,4000}?) "
    r"(?:contains (?P<what>untracked|modified) content|[0-9a-f]{4,64}\.{2,3}[0-9a-f]{4,64}(?: \([^()]*\))?:?)\s*$"
)
_BINARY = "the change of a binary file is left out (git diff records no content of them: commit and push it)"
_SUBMODULE = "the change of a submodule to another commit is left out (commit and push it)"
_INSIDE = {
    "untracked": "files of a submodule that were never added to it are left out",
    "modified": "the uncommitted changes inside a submodule are left out (set diff.submodule to diff to record them)",
}


class PatchError(ValueError):
    """Patch that cannot be applied, with a short reason."""


class _Section(msgspec.Struct):
    """The part of a patch about one file; names are relative to the root, empty where there is none."""

    lines: list[str] = msgspec.field(default_factory=list)
    content: set[int] = msgspec.field(default_factory=set)
    """The indices of those lines that are text of the file, each with its sign before it."""
    header: str = ""
    old: str = ""
    new: str = ""
    printed: tuple[str, str] = ("", "")
    """Both names as the header has them."""
    created: bool = False
    moved: list[str] = msgspec.field(default_factory=list)
    """Both names as a rename or copy prints them, quotes included and without prefixes."""
    why_left_out: str = ""


class FilePatch(msgspec.Struct, frozen=True):
    """The part of a patch about one file; names are empty where there is none. ``created``: it makes the file."""

    lines: tuple[str, ...]
    content: frozenset[int]
    old: str = ""
    new: str = ""
    created: bool = False

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def with_crlf(self) -> FilePatch:
        """The same for a file whose lines end with CR LF, if no line of it does so here."""
        if any(self.lines[index].endswith("\r\n") for index in self.content):
            return self
        changed = [
            f"{line.rstrip(_LF) or ' '}\r\n" if index in self.content and not self._lacks_line_end(index) else line
            for index, line in enumerate(self.lines)
        ]
        return replace(self, lines=tuple(changed))

    def _lacks_line_end(self, index: int) -> bool:
        """Whether the file ends with this line, and the line without a line end."""
        return any(line.startswith("\\") for line in self.lines[index : index + 2])


class Patch(msgspec.Struct, frozen=True):
    """Patch by files. ``text``: for ``git apply -p<strip>``, empty if nothing can be applied.

    ``old``: files named on its old side; ``new``: on its new side; ``created``: those of them that it makes.
    ``folder``: what the names start from, below the root. ``notes``: sentences on what of the changes is not in
    ``text``.
    """

    parts: tuple[FilePatch, ...] = ()
    strip: int = 1
    notes: tuple[str, ...] = ()
    folder: str = ""

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)

    @property
    def old(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.old for part in self.parts if part.old))

    @property
    def new(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.new for part in self.parts if part.new))

    @property
    def created(self) -> frozenset[str]:
        return frozenset(part.new for part in self.parts if part.created and part.new)

    @property
    def files(self) -> frozenset[str]:
        return frozenset((*self.old, *self.new))

    def below(self, folder: str) -> Patch:
        """The same patch of files in ``folder``."""

        def at(name: str) -> str:
            return posixpath.join(folder, name) if name else ""

        parts = [replace(part, old=at(part.old), new=at(part.new)) for part in self.parts]
        return replace(self, parts=tuple(parts), folder=folder)


def normalised(text: str) -> str:
    """``text`` without a byte order mark, without the colours of a terminal where its header lines have them, and with
    line feeds alone where its header lines end with CR LF: git ends them so itself."""
    text = text.removeprefix("\ufeff")
    if "\x1b[" in text and not _has_line_starting(text, _HEADER):
        bare = _COLOUR.sub("", text)
        text = bare if looks_like_patch(bare) else text
    return text.replace("\r\n", _LF) if _CRLF_HEADER.search(text) else text


def looks_like_patch(text: str) -> bool:
    """Whether some line of ``text`` is one that only patches have."""
    return (
        _has_line_starting(text, _HEADER)
        or any(_has_line_starting(text, mark) for mark in _MERGE)
        or _has_plain_header(text)
    )


def begins_like_patch(text: str) -> bool:
    """Whether the first line that is not blank is one that only patches have."""
    first, _, rest = text.lstrip().partition("\n")
    lowered = first.lower()
    if lowered.startswith("submodule ") and (_ON_SUBMODULE.match(first) or looks_like_patch(rest)):
        return True
    return lowered.startswith(("diff -", *_MERGE))


def _has_line_starting(text: str, prefix: str) -> bool:
    return text.startswith(prefix) or f"\n{prefix}" in text


def _has_plain_header(text: str) -> bool:
    """Whether ``---``, ``+++`` and ``@@`` start three consecutive lines, as diff(1) prints them."""
    lines = text.split("\n")
    return any(
        old.startswith("--- ") and new.startswith("+++ ") and _HUNK.match(hunk)
        for old, new, hunk in zip(lines, lines[1:], lines[2:], strict=False)
    )


def parse(text: str) -> Patch:
    """Parse the text of ``git diff`` or ``diff -u``.

    Raises:
        PatchError: it has parts that git cannot apply, such as the conflicts of a merge.
    """
    sections, submodules = _sections(normalised(text))
    strip = _strip(sections)
    for section in sections:
        if not section.moved:
            section.old, section.new = (_stripped(name, strip) for name in (section.old, section.new))
    changed = {section.new or section.old for section in sections}
    return Patch(
        tuple(
            FilePatch(tuple(section.lines), frozenset(section.content), section.old, section.new, section.created)
            for section in sections
            if not section.why_left_out
        ),
        strip,
        (
            *dict.fromkeys(note for line in submodules if (note := _on_submodule(line, changed))),
            *(
                f"{section.why_left_out}: {section.new or section.old or section.header}"
                for section in sections
                if section.why_left_out
            ),
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
            sections[-1].content.add(len(sections[-1].lines))
            sections[-1].lines.append(line)
            continue
        if line.startswith(_MERGE):
            raise PatchError(f"they hold the conflicts of a merge ({line.strip()[:200]}): resolve and commit them")
        if line.startswith(_HEADER):
            sections.append(_section_of(line))
        elif line.startswith("--- ") and lines[number + 1 : number + 2] and lines[number + 1].startswith("+++ "):
            if not sections or sections[-1].lines[-1].startswith(("+", "-", " ", "\\", "@")):
                sections.append(_Section())  # diff(1) prints no other header
            if not (sections[-1].created or sections[-1].moved):
                sections[-1].old = _name(line)
        elif line.startswith("Submodule "):
            submodules.append(line)
            continue
        elif not sections:
            continue  # a warning, a mail's head
        _read_header_line(line, sections[-1])
        sections[-1].lines.append(line)
        if hunk := _HUNK.match(line):
            old_left, new_left = (int(count) if count else 1 for count in hunk.groups())
    return sections, submodules


def _split(text: str) -> list[str]:
    """At line feeds only: the text of a file may hold what Python takes for line ends."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _section_of(line: str) -> _Section:
    old, new = _names_of_header(line)
    return _Section(header=line.strip(), old=old, new=new, printed=(old, new))


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
    """The index after the quoted name that ``text`` begins with."""
    index = 1
    while index < len(text) and text[index] != '"':
        index += 2 if text[index] == "\\" else 1
    return index + 1


def _read_header_line(line: str, section: _Section) -> None:
    """Read a header line into its section."""
    if line.startswith("+++ ") and not section.moved:
        section.new = _name(line)
    elif line.startswith("new file mode "):
        section.created, section.old = True, ""
    elif line.startswith("deleted file mode "):
        section.new = ""
    elif line.startswith(("rename from ", "copy from ")):
        section.old = _moved_name(line.split(" from ", 1)[1], section)
    elif line.startswith(("rename to ", "copy to ")):
        section.new = _moved_name(line.split(" to ", 1)[1], section)
    elif line.startswith("Binary files ") and line.rstrip().endswith(" differ"):
        section.why_left_out = _BINARY
    if _GITLINK.match(line):
        section.why_left_out = _SUBMODULE


def _moved_name(name: str, section: _Section) -> str:
    section.moved.append(name.rstrip())
    return _name(f"+++ {name}")


def _name(line: str) -> str:
    """The name behind ``---`` or ``+++``, its prefix still on it; empty for none."""
    text = line[4:].rstrip("\r\n")
    quoted = text.startswith('"')
    name = _unquoted(text[1 : _quote_end(text) - 1]) if quoted else text.partition("\t")[0].rstrip()
    return "" if name == _NO_FILE else name


def _strip(sections: list[_Section]) -> int:
    """Number of components that ``git apply`` removes from names: none where ``diff.noprefix`` left the prefixes out,
    or where diff(1) compared files of one folder."""
    known = [prefixed for section in sections if (prefixed := _is_prefixed(section)) is not None]
    return 0 if known and not any(known) else 1


def _is_prefixed(section: _Section) -> bool | None:
    """Whether its names have a prefix; None where they do not tell."""
    if section.moved:
        return section.header != f"{_HEADER}{' '.join(section.moved)}"
    old, new = section.printed if all(section.printed) else (section.old, section.new)
    if old and new:
        before, after = old.partition("/"), new.partition("/")
        return before[0] != after[0] and bool(before[1] and after[1])
    alone = old or new
    return False if alone and "/" not in alone else None


def _stripped(name: str, strip: int) -> str:
    return name.partition("/")[2] if strip else name


def _on_submodule(line: str, changed: set[str]) -> str:
    """A note on ``Submodule lib 1111..2222:``, unless the changes below it are in the patch."""
    match = _ON_SUBMODULE.match(line)
    if not match or (match["what"] != "untracked" and any(name.startswith(f"{match['name']}/") for name in changed)):
        return ""
    return f"{_INSIDE.get(match['what'], _SUBMODULE)}: {match['name']}"


def _unquoted(name: str) -> str:
    """git's C-style quoting of unusual names undone."""

    def character(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) & 0xFF]) if len(code) == 3 else _ESCAPED.get(code, code)

    return _ESCAPE.sub(character, name.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
