"""The init call that connects a script without one to its task: as text, or as lines of a patch.

Pure. The patch has no context lines, as agents expect (docs/internals/clearml-protocol.md#init-call).
"""

from __future__ import annotations

import ast
import posixpath
import re
import warnings
from collections.abc import Sequence

INIT = (
    "try: from allegroai import Task  # this import and the call were added by hpc-task\n",
    "except ImportError: from clearml import Task\n",
    'if __name__ == "__main__": Task.init()\n',
    "\n",
)
"""Four lines, as other tools expect; the name comes from the paid edition's package where that is installed."""


def text_with_init(text: str) -> str:
    """A whole script with the call in its place."""
    lines = text.splitlines(keepends=True)
    line = first_free_line(text)
    if line and not lines[line - 1].endswith("\n"):
        lines[line - 1] += "\n"
    return "".join([*lines[:line], *INIT, *lines[line:]])


def add_lines(patch: str, path: str, after: int, lines: Sequence[str]) -> str:
    """``patch``, and ``lines`` put into the file ``path`` below its line ``after`` (0: at the top).

    Both numbers are those of the file as ``patch`` leaves it. ``path`` is relative to the repository's root.
    """
    path = posixpath.normpath(path)
    if patch and not patch.endswith("\n"):
        patch += "\n"
    if created := _creation(path).search(patch):
        # Agents make a file that a later part of the patch names, so that creating it fails: one part does both.
        body = [line for line in (created["body"] or "").splitlines(keepends=True) if line.startswith("+")]
        unended = (created["body"] or "").endswith(_NO_NEWLINE) and after < len(body)
        body[after:after] = [f"+{line}" for line in lines]
        hunk = _hunk("/dev/null", f"b/{path}", f"-0,0 +1,{len(body)}", body) + (_NO_NEWLINE if unended else "")
        return patch[: created.start("hunk")] + hunk + patch[created.end("hunk") :]
    added = [f"+{line}" for line in lines]
    return f"{patch}diff --git a/{path} b/{path}\n" + _hunk(
        f"a/{path}", f"b/{path}", f"-{after},0 +{after + 1},{len(lines)}", added
    )


_NO_NEWLINE = "\\ No newline at end of file\n"


def _hunk(old: str, new: str, place: str, body: Sequence[str]) -> str:
    return f"--- {old}\n+++ {new}\n@@ {place} @@\n{''.join(body)}"


def _creation(path: str) -> re.Pattern[str]:
    """The part of a patch that creates ``path``; an empty file has no hunk."""
    name = re.escape(path)
    return re.compile(
        rf"^diff --git a/{name} b/{name}\nnew file mode .*\n(?:index .*\n)?"
        r"(?P<hunk>(?:--- .*\n\+\+\+ .*\n@@ .*\n(?P<body>(?:[+\\].*\n)*))?)",
        re.MULTILINE,
    )


def first_free_line(text: str) -> int:
    """How many lines must stay at the top: those up to the last ``__future__`` import, 0 without one.

    A script that Python cannot parse (of another version, or broken) has none as far as we know.
    """
    try:
        with warnings.catch_warnings():
            # What Python thinks of somebody's string escapes is nothing to print here.
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return 0
    futures = [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    return max((node.end_lineno or node.lineno for node in futures), default=0)
