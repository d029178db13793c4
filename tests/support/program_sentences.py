"""Sentences that the program can print, read from its code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from syntax_trees import syntax_nodes

GAP = "…"
"""In a page: what the program fills in."""
_NAMED = re.compile(r"\{\w*\}|\[(?=[^\]]*\{)|(?<=\})\]")
"""Places in a text that is filled in by ``str.format``, or by the table of failure causes with its brackets."""

_LEAST = 5
"""Characters of half a sentence that say anything."""


def printed_parts(package: Path) -> frozenset[str]:
    """Every constant part of every text in the code, but for docstrings: an f-string has one between two values."""
    return frozenset(part for path in package.rglob("*.py") for part in _parts(syntax_nodes(path)))


def _parts(nodes: Sequence[ast.AST]) -> Iterator[str]:
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield from (_plain(part) for part in _NAMED.split(node.value) if part.strip())


def _plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def missing_parts(sentence: str, parts: frozenset[str]) -> list[str]:
    """Parts of a page's sentence, between its gaps, that no text in the code has, nor two that follow each other.

    Commas, brackets and the like between two gaps say nothing.
    """
    wanted = (_plain(part) for part in sentence.split(GAP))
    return [part for part in wanted if re.search(r"[A-Za-z]{3}", part) and not _is_printed(part, parts)]


def _is_printed(part: str, parts: frozenset[str]) -> bool:
    if any(part in text for text in parts):
        return True
    halves = ((part[:at].strip(), part[at:].strip()) for at in range(_LEAST, len(part) - _LEAST))
    return any(
        any(text.endswith(first) for text in parts) and any(text.startswith(second) for text in parts)
        for first, second in halves
    )
