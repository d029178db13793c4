"""``script.diff``: uncommitted changes to a commit, or the whole text of a script; the init call that is added to it.

See docs/internals/clearml-protocol.md#uncommitted-changes.
"""

from __future__ import annotations

import ast
import posixpath
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hpc_agent.errors import SourceError
from hpc_agent.sources import git, patch_text
from hpc_agent.sources.patch_text import FilePatch, Patch, PatchError

_FUTURE = re.compile(r"^\s*(?:from\s+__future__\s+import|import\s+__future__)\b")
_MAX_PROGRAM_LENGTH = 300_000
"""Characters. Python takes 6 s to parse a megabyte that is made for it, and no other thread runs meanwhile."""
_INJECTED = re.compile(
    r"^(?:from clearml import|try: from \w+ import Task|except ImportError: from clearml|.*\bTask\.init\()"
)


def is_patch(diff: str, *, of_repository: bool = True) -> bool:
    """Whether ``diff`` is a patch; any other text is the script itself.

    Where a repository is named, whatever has a patch in it is one: users' git settings may put colours and warnings
    before it. A script without a repository may quote patches.
    """
    text = patch_text.normalised(diff)
    return patch_text.begins_like_patch(text) or (of_repository and patch_text.looks_like_patch(text))


def read_patch(diff: str) -> Patch:
    """Parse uncommitted changes.

    Raises:
        SourceError: git cannot apply it.
    """
    try:
        return patch_text.parse(diff)
    except PatchError as error:
        raise SourceError(f"the task's uncommitted changes cannot be applied: {error}") from error


def relative_to_root(patch: Patch, folders: Iterable[str], exists: Callable[[str], bool]) -> Patch:
    """``patch`` with names relative to the root: with git's ``diff.relative`` they start from the one of ``folders``
    from which the task was made. ``exists``: whether the commit has a path (relative to the root)."""
    changed = [path for path in patch.old if path not in patch.created]
    if changed and not any(map(exists, changed)):
        for folder in folders:
            if folder not in ("", ".") and all(exists(posixpath.join(folder, path)) for path in changed):
                return patch.below(folder)
    return patch


def apply(patch: Patch, root: Path, *, label: str, only: Sequence[str] = ()) -> tuple[str, ...]:
    """Apply a patch to the files below ``root``, all of them or those named in ``only``; context is not needed.

    ``label``: the commit's name in messages. Returns notes on changes that were left out.

    Raises:
        SourceError: it does not fit, or names a file outside of ``root``.
    """
    text = "".join(_with_line_ends_of_file(part, root).text for part in patch.parts)
    if not text:
        if patch.notes:
            return patch.notes
        raise SourceError(f"the task's uncommitted changes cannot be applied to {label}: no file is changed")
    for path in patch.old:
        # A patch may create a file and change it further down (clearml-task's own, for a script that is new to git).
        if path not in patch.created and (not only or path in only):
            _create_missing(root, path)
    text = text if text.endswith("\n") else text + "\n"
    options = [f"-p{patch.strip}", *(f"--include={path}" for path in only)]
    options += [f"--directory={patch.folder}"] if patch.folder else []
    # Without --unsafe-paths git refuses names that leave the folder or go through a link.
    answer = git.run(["apply", "--unidiff-zero", "--whitespace=nowarn", *options, "-"], cwd=root, input=text)
    if not answer.ok:
        raise SourceError(
            f"the task's uncommitted changes do not fit {label}: {git.last_line(answer)}; "
            "were they made on a commit that was not pushed, or on files that were never added?"
        )
    return patch.notes


def _with_line_ends_of_file(part: FilePatch, root: Path) -> FilePatch:
    """Web forms turn CR LF in a text into line feeds: a patch of a file that has CR LF does not fit then."""
    if not part.content or not part.old:
        return part
    try:
        data = resolve_inside(root, part.old, "the task's uncommitted changes name").read_bytes()
    except OSError:
        return part
    return part.with_crlf() if data.count(b"\r\n") == data.count(b"\n") > 0 else part


def _create_missing(root: Path, path: str) -> None:
    """An empty file where a patch changes one that the commit does not have, as the reference does."""
    file = resolve_inside(root, path, "the task's uncommitted changes name")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def resolve_inside(root: Path, path: str, what: str) -> Path:
    """``root / path`` with links followed.

    Raises:
        SourceError: it is outside ``root``, or in its ``.git``.
    """
    top = root.resolve()
    file = (top / path).resolve()
    if (file != top and top not in file.parents) or ".git" in file.parts[len(top.parts) :]:
        raise SourceError(f"{what} {path!r}, which is outside of the task's own folder")
    return file


def is_python(text: str) -> bool:
    """Whether ``text`` is a Python program with at least one statement; a very long text counts as one."""
    if len(text) > _MAX_PROGRAM_LENGTH:
        return True
    try:
        return bool(ast.parse(text).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def refuse_unrecognised(text: str, label: str) -> None:
    """Refuse uncommitted changes that are not a patch if they are not a Python program either. ``label``: the commit.

    Raises:
        SourceError: they are neither.
    """
    if not is_python(text):
        first = text.strip().partition("\n")[0][:120]
        raise SourceError(
            f"the task's uncommitted changes cannot be applied to {label}: they are neither a patch nor a script, and "
            f"begin with {first!r}; record them again with `git diff`, or clear them to run the commit as it is"
        )


def fix_future_imports(text: str) -> str:
    """Move an init call that an SDK put at the very top to below the ``__future__`` imports, which must come first.

    Text that compiles, or that does not begin with such a call, stays as it is.
    """
    if "__future__" not in text or not _INJECTED.match(text) or len(text) > _MAX_PROGRAM_LENGTH:
        return text
    try:
        compile(text, "script", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
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
                lines[last].rstrip().endswith("\\") or ("(" in line and not _is_closed(lines[index : last + 1]))
            ):
                last += 1
    return last


def _is_closed(lines: Sequence[str]) -> bool:
    return any(")" in line for line in lines)


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
    """Number of lines that must stay at the top: those up to the last ``__future__`` import, 0 without one.

    A script that Python cannot parse (of another version, or broken) has none as far as we know.
    """
    try:
        with warnings.catch_warnings():
            # Warnings about string escapes of the user's code must not be printed here.
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return 0
    futures = [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    return max((node.end_lineno or node.lineno for node in futures), default=0)
