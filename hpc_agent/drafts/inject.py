"""The init call that connects a script without one to its task (wire.md 7.4): as text, or as a patch without context.

Pure. Four lines are added: the import, from the paid edition's package where it is installed, the call, a blank line.
"""

from __future__ import annotations

import ast
import posixpath

INIT = (
    "try: from allegroai import Task  # this import and the call were added by hpc-task\n",
    "except ImportError: from clearml import Task\n",
    'if __name__ == "__main__": Task.init()\n',
    "\n",
)

CLEARML_REQUIREMENT_HUNK = (
    "diff --git a/requirements.txt b/requirements.txt\n"
    "--- a/requirements.txt\n"
    "+++ b/requirements.txt\n"
    "@@ -0,0 +1,1 @@\n"
    "+clearml\n"
)
"""Puts ``clearml`` at the top of a repository's requirements.txt; agents create the file where there is none."""


def text_with_init(text: str) -> str:
    """A whole script with the call in its place."""
    lines = text.splitlines(keepends=True)
    line = first_free_line(text)
    if line and not lines[line - 1].endswith("\n"):
        lines[line - 1] += "\n"
    return "".join([*lines[:line], *INIT, *lines[line:]])


def init_hunk(path: str, text: str | None) -> str:
    """The same as a patch of ``path`` (relative to the repository's root).

    ``text`` is what the script holds when the patch is applied; None when it cannot be known, which puts the call at
    the top (agents move it below ``__future__`` imports).
    """
    path = posixpath.normpath(path)
    line = first_free_line(text) if text is not None else 0
    return (
        f"diff --git a/{path} b/{path}\n"
        f"--- a/{path}\n"
        f"+++ b/{path}\n"
        f"@@ -{line},0 +{line + 1},{len(INIT)} @@\n" + "".join(f"+{added}" for added in INIT)
    )


def first_free_line(text: str) -> int:
    """How many lines must stay at the top: those up to the last ``__future__`` import, 0 without one.

    A script that Python cannot parse (of another version, or broken) has none as far as we know.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return 0
    futures = [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    return max((node.end_lineno or node.lineno for node in futures), default=0)
