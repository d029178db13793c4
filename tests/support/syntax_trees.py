"""The syntax trees of this project's modules, for the tests that read the code."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from pathlib import Path


@cache
def syntax_nodes(path: Path) -> Sequence[ast.AST]:
    """All nodes of a module, parsed once for all tests of a process."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
