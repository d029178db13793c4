"""``script.diff``: uncommitted changes to a commit, or the whole text of a script (wire.md 4.6)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hpc_agent.errors import SourceError
from hpc_agent.sources import git

_OLD_SIDE = re.compile(r'^--- (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\t\n]*))[^\n]*\n\+\+\+ ', re.MULTILINE)
_NEW_SIDE = re.compile(r'^\+\+\+ (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\t\n]*))[^\n]*\n@@ ', re.MULTILINE)
_CREATED = re.compile(
    r'^diff --git (?:"a/(?P<quoted>(?:[^"\\]|\\.)*)" ".*"|a/(?P<plain>.+) b/(?P=plain))\nnew file mode ', re.MULTILINE
)
_FUTURE = re.compile(r"^\s*(?:from\s+__future__\s+import|import\s+__future__)\b")
_INJECTED = re.compile(
    r"^(?:from clearml import|try: from \w+ import Task|except ImportError: from clearml|.*\bTask\.init\()"
)
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


def is_patch(diff: str) -> bool:
    """Whether ``diff`` is a patch; any other text is the script itself."""
    text = diff.lstrip().lower()
    if text.startswith("diff "):
        return True
    first, _, rest = text.partition("\n")
    return first.startswith("submodule ") and rest.lstrip().startswith("diff ")


def changed_files(diff: str) -> list[str]:
    """The files that a patch names on its old side, relative to the root; new files are not among them."""
    return _names(_OLD_SIDE, diff)


def named_files(diff: str) -> set[str]:
    """All files that a patch changes or creates, relative to the root."""
    return {*_names(_OLD_SIDE, diff), *_names(_NEW_SIDE, diff)}


def _names(side: re.Pattern[str], diff: str) -> list[str]:
    paths = []
    for match in side.finditer(diff):
        name = _unquoted(match["quoted"]) if match["quoted"] is not None else match["plain"].rstrip()
        if name != "/dev/null":
            # As git apply does, the first component is stripped: ``a/x`` is ``x``.
            paths.append(name.partition("/")[2])
    return list(dict.fromkeys(path for path in paths if path))


def _created_files(diff: str) -> set[str]:
    return {
        _unquoted(match["quoted"]) if match["quoted"] is not None else match["plain"]
        for match in _CREATED.finditer(diff)
    }


def _unquoted(name: str) -> str:
    """git's C-style quoting of unusual names undone."""

    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8)]) if len(code) == 3 else _ESCAPED.get(code, code)

    return _ESCAPE.sub(plain, name.encode()).decode("utf-8", "replace")


def apply(diff: str, root: Path, *, shown: str, only: Sequence[str] = ()) -> None:
    """Apply a patch to the files below ``root``, all of them or those named in ``only``; context is not needed.

    ``shown`` names the commit in the error.

    Raises:
        SourceError: it does not fit, or names a file outside of ``root``.
    """
    created = _created_files(diff)
    for path in changed_files(diff):
        # A patch may create a file and change it further down (clearml-task's own, for a script that is new to git).
        if path not in created and (not only or path in only):
            _create_missing(root, path)
    text = diff if diff.endswith("\n") else diff + "\n"
    includes = [f"--include={path}" for path in only]
    # Without --unsafe-paths git refuses names that leave the folder or go through a link.
    answer = git.run(["apply", "--unidiff-zero", "--whitespace=nowarn", *includes, "-"], cwd=root, input=text)
    if not answer.ok:
        raise SourceError(
            f"the task's uncommitted changes do not fit {shown}: {git.last_line(answer)}; "
            "were they made on a commit that was not pushed, or on files that were never added?"
        )


def _create_missing(root: Path, path: str) -> None:
    """An empty file where a patch changes one that the commit does not have, as the reference does."""
    file = inside(root, path, "the task's uncommitted changes name")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def inside(root: Path, path: str, what: str) -> Path:
    """``root / path`` with links followed.

    Raises:
        SourceError: it leaves ``root``, or is git's own.
    """
    top = root.resolve()
    file = (top / path).resolve()
    if (file != top and top not in file.parents) or ".git" in file.parts[len(top.parts) :]:
        raise SourceError(f"{what} {path!r}, which is outside of the task's own folder")
    return file


def mend_future_imports(text: str) -> str:
    """Move an init call that an SDK put at the very top to below the ``__future__`` imports, which must come first.

    Text that compiles, or that does not begin with such a call, stays as it is.
    """
    try:
        compile(text, "script", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        if "__future__" not in str(error):
            return text
    else:
        return text
    lines = text.splitlines(keepends=True)
    count = 0
    while count < len(lines) and (_INJECTED.match(lines[count]) or (count and not lines[count].strip())):
        count += 1
    last = _last_future(lines)
    if not count or last is None or last < count:
        return text
    return "".join([*lines[count : last + 1], *lines[:count], *lines[last + 1 :]])


def _last_future(lines: Sequence[str]) -> int | None:
    """The index of the last line of the last ``__future__`` import."""
    last = None
    for index, line in enumerate(lines):
        if _FUTURE.match(line):
            last = index
            while last + 1 < len(lines) and (
                lines[last].rstrip().endswith("\\") or ("(" in line and not _closed(lines[index : last + 1]))
            ):
                last += 1
    return last


def _closed(lines: Sequence[str]) -> bool:
    return any(")" in line for line in lines)
