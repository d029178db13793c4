"""Requirement files of a repository at a commit, read without a checkout."""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.requirement_lines import INCLUDES, LineError, decoded, logical_lines, options_of
from hpc_agent.domain.task import TaskScript
from hpc_agent.sources import changes
from hpc_agent.sources.layout import StagedSource, plan_layout
from hpc_agent.sources.mirror import Mirror
from hpc_agent.sources.patch_text import Patch
from hpc_agent.sources.submodules import is_inside

_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg")
_CONDA = ("environment.yml", "environment.yaml", "conda.yml", "conda.yaml")
_LOCKS = ("poetry.lock", "uv.lock")
_LISTS = (".txt", ".in")
_UNREAD = re.compile(
    r"(?:conda-?)?env(?:ironment)?[\w.-]*\.ya?ml|conda[\w.-]*\.ya?ml|Pipfile(?:\.lock)?|pixi\.(?:toml|lock)|pdm\.lock"
    r"|pylock[\w.-]*\.toml|requirements(?:-dev)?\.lock|requirements[\w.-]+\.(?:txt|in)|requirements\.(?:in|ya?ml)"
)
"""Names of files that other tools read. They are ignored, with a note."""


def read_requirement_files(mirror: Mirror, staged: StagedSource, script: TaskScript) -> RequirementFiles:
    """Every requirements.txt from the root down to the working folder with all they include, as the task sees them.

    Its uncommitted changes count: ``clearml-task`` adds its own package to requirements.txt this way.

    Raises:
        SourceError: the changes do not fit.
    """
    return _CommitReader(mirror, staged, script).read()


class _CommitReader:
    def __init__(self, mirror: Mirror, staged: StagedSource, script: TaskScript) -> None:
        self._mirror = mirror
        self._staged = staged
        self._script = script
        self._layout = plan_layout(script, staged)
        self._patch = Patch()
        if changes.is_patch(script.diff):
            self._patch = changes.relative_to_root(
                changes.read_patch(script.diff), self._layout.folders, lambda path: self._committed(path) is not None
            )
        self._texts: dict[str, str] = {}

    def read(self) -> RequirementFiles:
        working_dir = self._layout.working_dir
        folders = ["", *_up_to(working_dir)]
        lists = [posixpath.join(folder, "requirements.txt") for folder in folders]
        listed = any(self._committed(path) is not None for path in lists)
        pending = [*lists]
        # The task's own list may include files of the repository.
        for line in (*(self._script.requirements.pip or ()), *(self._script.requirements.org_pip or ())):
            pending += _included(line, working_dir)
        self._read_all(pending)
        projects = [folder for folder in reversed(folders) if self._has_project(folder)]
        return RequirementFiles(
            tuple(path for path in lists if path in self._texts),
            self._texts,
            "" if working_dir == "." else working_dir,
            tuple(projects),
            listed,
            tuple(self._unread(folders)),
            tuple(self._locks(projects)),
            dict(self._conda(folders)),
        )

    def _read_all(self, pending: list[str]) -> None:
        """The files in ``pending`` and all that they include."""
        while pending:
            path = pending.pop()
            if path not in self._texts and (text := self._text(path)) is not None:
                self._texts[path] = text
                pending += _included(text, posixpath.dirname(path))

    def _has_project(self, folder: str) -> bool:
        found = False
        for name in _PROJECT:
            path = posixpath.join(folder, name)
            if (text := self._text(path)) is not None:
                self._texts[path] = text
                found = True
        return found

    def _unread(self, folders: list[str]) -> Iterator[str]:
        for folder in folders:
            for name in self._names(folder):
                path = posixpath.join(folder, name)
                if _UNREAD.fullmatch(name[:200]) and path not in self._texts:
                    yield path
                elif name == "requirements":
                    lists = (posixpath.join(path, item) for item in self._names(path) if item.endswith(_LISTS))
                    yield from (item for item in lists if item not in self._texts)

    def _conda(self, folders: list[str]) -> Iterator[tuple[str, str]]:
        for folder in reversed(folders):
            names = self._names(folder)
            for path in (posixpath.join(folder, name) for name in _CONDA):
                wanted = posixpath.basename(path) in names or path in self._patch.files
                if wanted and (text := self._text(path)) is not None:
                    yield path, text

    def _locks(self, projects: list[str]) -> Iterator[str]:
        for folder in projects:
            yield from (posixpath.join(folder, name) for name in self._names(folder) if name in _LOCKS)

    def _names(self, folder: str) -> tuple[str, ...]:
        return self._mirror.names_in(self._staged.commit, folder)

    def _committed(self, path: str) -> bytes | None:
        return self._mirror.read(self._staged.commit, path)

    def _text(self, path: str) -> str | None:
        data = self._committed(path)
        if path in self._patch.files:
            data = self._changed(path, data)
        return None if data is None else decoded(data)

    def _changed(self, path: str, data: bytes | None) -> bytes | None:
        """The content with the uncommitted changes."""
        with tempfile.TemporaryDirectory(prefix="hpc-agent-") as folder:
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if data is not None:
                file.write_bytes(data)
            label = f"commit {self._staged.commit} of {self._staged.repository}"
            changes.apply(self._patch, Path(folder), label=label, only=(path,))
            return file.read_bytes() if file.exists() else None


def _up_to(working_dir: str) -> list[str]:
    """``a/b`` → ``a``, ``a/b``."""
    parts = [part for part in working_dir.split("/") if part not in ("", ".")]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _included(text: str, folder: str) -> list[str]:
    """The files that the lines of ``text`` include, relative to the root, as far as they are inside the repository.

    Errors in a line are reported when it is installed.
    """
    found: list[str] = []
    try:
        for line in logical_lines(text):
            for option in options_of(line):
                path = posixpath.normpath(posixpath.join(folder, option.value))
                if option.name in INCLUDES and "://" not in option.value and is_inside(path):
                    found.append(path)
    except LineError:
        pass
    return found
