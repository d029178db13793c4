"""Citations in code, tests and documents: Markdown files, with the heading if one is named, and Python modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(?<![\w/.*<>-])(?P<path>(?:[\w.-]+/)*[\w-]+\.md)(?:#(?P<anchor>[\w-]+))?(?![\w-])")
_LINK = re.compile(r"(?:\[[^\[\]]*)?\]\((?!https?:|mailto:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)

_MODULE = re.compile(r"(?<![\w/.*<>-])(?P<path>(?:hpc_agent|scripts|tests|docs|\.ci)/(?:[\w.-]+/)*[\w-]+\.py)(?![\w-])")
"""A module by its path in the checkout."""
_A_NAME = "NAME"
"""In a path: a file that is still to be written."""
_FOLDERS = ("hpc_agent", "scripts", "tests", "docs", "sbatch_templates", ".ci", ".github")
_TEXT = frozenset({"", ".py", ".md", ".html", ".j2", ".sh", ".toml", ".yml", ".yaml"})
_WRITES_PAGES = {Path("scripts/reference"): Path("docs"), Path("scripts/walk/page.py"): Path("docs")}
"""They hold the text of pages, whose links are relative to where they write them."""
_CAPTURED = ("tests", "data")
"""What other programs printed cites what it likes."""


@dataclass(frozen=True)
class Citation:
    """``path`` as written; empty for a link within its own page. ``literal``: the whole of a string in code, which is
    a part of a path there."""

    file: Path
    line: int
    path: str
    anchor: str = ""
    link: bool = False
    literal: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.path}{'#' if self.anchor else ''}{self.anchor}"


def texts(root: Path) -> Iterator[Path]:
    """Every file of the checkout that people wrote, relative to ``root``."""
    yield from (path.relative_to(root) for path in sorted(root.iterdir()) if path.suffix in (".md", ".toml"))
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            relative = path.relative_to(root)
            written = path.suffix in _TEXT and "__pycache__" not in relative.parts
            ours = relative.parts[:2] != _CAPTURED or path.name == "README.md"
            if written and path.is_file() and ours:
                yield relative


def citations(file: Path, text: str) -> Iterator[Citation]:
    """What ``text``, the content of ``file``, cites."""
    for number, line in enumerate(text.splitlines(), 1):
        links = list(_LINK.finditer(line)) if file.suffix == ".md" else []
        for match in links:
            yield Citation(file, number, match["path"], match["anchor"] or "", link=True)
        yield from (Citation(file, number, path) for path in _modules(file, line))
        if ".md" not in line:
            continue
        for match in _NAME.finditer(line):
            if not any(link.start() < match.start() < link.end() for link in links):
                literal = line[match.start() - 1 : match.start()] == line[match.end() : match.end() + 1] == '"'
                yield Citation(file, number, match["path"], match["anchor"] or "", literal=literal)


def _modules(file: Path, line: str) -> Iterator[str]:
    """In code only between back-ticks: other paths there may be of a test's own folder."""
    for match in _MODULE.finditer(line) if ".py" in line else ():
        quoted = line[match.start() - 1 : match.start()] == line[match.end() : match.end() + 1] == "`"
        if (quoted or file.suffix == ".md") and _A_NAME not in match["path"].split("/"):
            yield match["path"]


def anchors(page: str) -> frozenset[str]:
    """The anchors of a Markdown page's headings, as GitHub and Python-Markdown make them."""
    headings = _HEADING.findall(_FENCE.sub("", page))
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)) for heading in headings)
    return frozenset(text.strip().lower().replace(" ", "-") for text in plain)


def wrong(root: Path, citation: Citation) -> str:
    """Why the citation leads nowhere; empty if it leads somewhere.

    A link is relative to its page. A name in text is relative to the checkout or to the file's own folder.
    """
    here = root / _WRITES_PAGES.get(citation.file, citation.file.parent)
    if not citation.path:
        found = root / citation.file
    elif citation.literal:
        found = next((path for path in _documents(root) if path.name == citation.path), root / citation.path)
    elif citation.link or not (root / citation.path).exists():
        found = here / citation.path
    else:
        found = root / citation.path
    if not found.exists():
        return f"{citation}: there is no such file"
    if citation.anchor and citation.anchor not in anchors(found.read_text(encoding="utf-8")):
        return f"{citation}: there is no such heading"
    return ""


def _documents(root: Path) -> Iterator[Path]:
    yield from root.glob("*.md")
    for folder in ("docs", "sbatch_templates"):
        yield from (root / folder).rglob("*.md")
