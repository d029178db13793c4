"""The requirement files of a repository at a commit, without a checkout."""

from __future__ import annotations

import posixpath
import re
import tempfile
from pathlib import Path

from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import Script
from hpc_agent.sources import changes
from hpc_agent.sources.layout import plan
from hpc_agent.sources.mirror import Mirror
from hpc_agent.sources.staged import StagedSource
from hpc_agent.sources.submodules import is_inside

_INCLUDE = re.compile(r"^\s*(?:-r|-c|--requirements?|--constraints?)(?:\s*=\s*|\s+|(?<=-[rc]))(?P<path>[^\s#]+)")

_LOCKS = ("uv.lock", "poetry.lock")


def read_requirement_files(mirror: Mirror, staged: StagedSource, script: Script) -> RequirementFiles:
    """Every requirements.txt from the root down to the working folder with all they include, as the task sees them.

    Its uncommitted changes count: ``clearml-task`` adds its own package to requirements.txt this way.

    Raises:
        SourceError: the changes do not fit.
    """
    working_dir = plan(script, staged).working_dir
    folders = ["", *(_up_to(working_dir))]
    texts: dict[str, str] = {}
    listed = False
    lists = [posixpath.join(folder, "requirements.txt") for folder in folders]
    pending = [*lists]
    # The task's own list may include files of the repository.
    for line in (*(script.requirements.pip or ()), *(script.requirements.org_pip or ())):
        pending += included(line, working_dir)
    while pending:
        path = pending.pop()
        if path in texts:
            continue
        committed = mirror.read(staged.commit, path)
        listed = listed or (committed is not None and path in lists)
        text = _as_changed(path, committed, script, staged)
        if text is not None:
            texts[path] = text
            for line in text.splitlines():
                pending += included(line, posixpath.dirname(path))
    roots = tuple(path for path in lists if path in texts)
    project = _find_project(mirror, staged, script, folders, texts)
    return RequirementFiles(roots, texts, "" if working_dir == "." else working_dir, project, listed)


def _find_project(
    mirror: Mirror, staged: StagedSource, script: Script, folders: list[str], texts: dict[str, str]
) -> str:
    """The pyproject.toml nearest to the working folder, put into ``texts`` with its lock; empty if there is none."""
    for folder in reversed(folders):
        for name in ("pyproject.toml", *_LOCKS):
            path = posixpath.join(folder, name)
            text = _as_changed(path, mirror.read(staged.commit, path), script, staged)
            if text is not None:
                texts[path] = text
            elif name == "pyproject.toml":
                break
        else:
            return posixpath.join(folder, "pyproject.toml")
    return ""


def _up_to(working_dir: str) -> list[str]:
    """``a/b`` → ``a``, ``a/b``."""
    parts = [part for part in working_dir.split("/") if part not in ("", ".")]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def included(line: str, folder: str) -> list[str]:
    """The file that a line includes, relative to the root, if it is inside the repository."""
    match = _INCLUDE.match(line)
    if not match or "://" in match["path"]:
        return []
    path = posixpath.normpath(posixpath.join(folder, match["path"]))
    return [path] if is_inside(path) else []


def _as_changed(path: str, text: str | None, script: Script, staged: StagedSource) -> str | None:
    if not changes.is_patch(script.diff) or path not in changes.named_files(script.diff):
        return text
    with tempfile.TemporaryDirectory(prefix="hpc-agent-") as folder:
        file = Path(folder) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            file.write_text(text, encoding="utf-8")
        shown = f"commit {staged.commit} of {staged.repository}"
        changes.apply(script.diff, Path(folder), shown=shown, only=(path,))
        return file.read_text(encoding="utf-8") if file.exists() else None
