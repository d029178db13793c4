"""The language of the project: one name for one thing, and plain words in code, tests and documents."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from document_links import texts
from syntax_trees import syntax_nodes

from hpc_agent.cli.main import COMMANDS
from hpc_agent.schedulers.registry import BACKENDS, PILOTS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hpc_agent"

A_BACKEND = "schedulers/<backend>"
"""The folders of the backends count as one: each has the same parts, by the same names."""

SAME_BASENAME = {
    "settings": {"config", A_BACKEND},
    # One service of ClearML's API: the calls of the client, and the answers of the embedded server.
    "projects": {"api", "server/services"},
    "queues": {"api", "server/services"},
    "tasks": {"api", "server/services"},
    "workers": {"api", "server/services"},
}
"""Modules of one name, which means the same in each of these folders."""

_GAP = r"(?:_|\s+(?:#\s*)?)"  # lines of a paragraph or a comment go on in the next
_USER = r"(?<![\"=~])nobody(?!\")"  # not the name of a Unix user: "nobody", --user=nobody, ~nobody
_NOUN = rf"(?:is|are|was|were|be|been){_GAP}no(?!{_GAP}(?:longer|more|less|matter|such|other|reason|need)(?![a-z]))"
BANNED = {
    _USER: "no user, no agent, no process: name what is missing",
    "somebody|whomever|whoever": "a user, another process, the caller: name it",
    "anybody|everybody": "any user, all users",
    "anew": "again",
    f"for{_GAP}ever": "forever",
    "whatsoever|lest|upon|ourselves": "a plainer word",
    "told": "got, was signalled, was reported; to tell apart: to distinguish",
    "besides?": "next to, in addition to, at the same time as",
    f"stands?(?!-|{_GAP}for(?![a-z]))|stood": "is, is written, is in",
    "mends?|mended|mending": "to fix, to repair",
    f"(?:came|comes?){_GAP}to{_GAP}life": "started, starts",
    f"nothing{_GAP}but": "only",
    _NOUN: "is not a …",
    "(?-i:Sights?|Clues|Inhabitant|Glimpse|Circumstances)": "the term of docs/glossary.md",
}
"""Pattern of words → what to write instead. Words of a name count too."""

_THERE = re.compile(rf"there{_GAP}(?:is|are|was|were|be|been){_GAP}no(?![a-z])", re.IGNORECASE)
_ANY = re.compile(
    "|".join(f"(?P<w{number}>(?<![A-Za-z])(?:{words})(?![A-Za-z]))" for number, words in enumerate(BANNED)),
    re.IGNORECASE,
)


def banned(text: str) -> Iterator[str]:
    """Each banned word in ``text`` with its line and what to write instead."""
    plain = _THERE.sub(lambda found: re.sub(r"\S", "-", found[0]), text)
    for found in _ANY.finditer(plain):
        instead = list(BANNED.values())[int((found.lastgroup or "w0")[1:])]
        yield f"{plain.count(chr(10), 0, found.start()) + 1}: {' '.join(found[0].split())!r}, better: {instead}"


def classes() -> dict[str, list[str]]:
    """Class names of the package, each with the modules that define it."""
    found = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in syntax_nodes(path):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(str(path.relative_to(ROOT)))
    return found


def basenames() -> dict[str, set[str]]:
    """Names of modules and packages, each with the folders that hold one; without the modules of commands."""
    found = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        if path == PACKAGE / "__init__.py":
            continue
        named = path.parent if path.name == "__init__.py" else path
        folder = named.parent.relative_to(PACKAGE).as_posix()
        if folder in {f"schedulers/{backend}" for backend in (*BACKENDS, PILOTS)}:
            folder = A_BACKEND
        if not (folder == "cli" and named.stem in {"task", *(module for module, _ in COMMANDS.values())}):
            found[named.stem].add(folder)
    return found


def test_no_class_name_is_defined_twice() -> None:
    found = classes()
    assert len(found) > 400
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}


def test_no_module_name_means_two_things() -> None:
    found = {name: folders for name, folders in basenames().items() if len(folders) > 1}
    assert found == SAME_BASENAME


def test_no_text_has_a_banned_word() -> None:
    files = [file for file in texts(ROOT) if ROOT / file != Path(__file__)]
    assert {file.parts[0] for file in files} >= {"README.md", "docs", "hpc_agent", "scripts", "tests"}
    found = [f"{file}:{word}" for file in files for word in banned((ROOT / file).read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("that nobody has", 1),
        ('"nobody"', 0),
        ("def test_it_is_no_error() -> None:", 1),
        ("it is\n    # no error", 1),
        ("there is no error, and it is no longer one", 0),
        ("a stand-in stands for a standalone one", 0),
        ("Whoever asks for ever,\nis told", 3),
        ("class Sight:", 1),
        ("in sight", 0),
    ],
)
def test_a_banned_word_is_found(text: str, count: int) -> None:
    assert len(list(banned(text))) == count
