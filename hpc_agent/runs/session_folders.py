"""Folders of interactive sessions, ``<root>/sessions/<random>``: there a session's job leaves how to connect to it."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from hpc_agent.domain.ids import TaskId
from hpc_agent.file_records import ensure_directory, write_atomic
from hpc_agent.runs.directory import RunsFolder

_TASK = "task"


class SessionFolders(msgspec.Struct, frozen=True):
    """All of one root. ``runs``: that of the same root."""

    path: Path
    runs: RunsFolder

    def create(self) -> Path:
        """A new one, before its task is there: the task's script names it. Only its user can read it."""
        above = ensure_directory(ensure_directory(self.path.parent, mode=0o755) / self.path.name, mode=0o700)
        return ensure_directory(above / secrets.token_hex(8), mode=0o700)

    def set_task(self, folder: Path, task: TaskId) -> None:
        write_atomic(folder / _TASK, task.encode(), mode=0o600)

    def remove_old(self, before: datetime) -> int:
        """Remove those that nothing was written to since, and whose tasks have no run directory any more; how many."""
        removed = 0
        for folder in self._all():
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime < before.timestamp() and not self._has_runs(folder):
                    shutil.rmtree(folder)
                    removed += 1
        return removed

    def _all(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            yield from sorted(self.path.iterdir())

    def _has_runs(self, folder: Path) -> bool:
        path = folder / _TASK
        task = TaskId(path.read_text(encoding="utf-8")) if path.exists() else TaskId("")
        return bool(task) and next(self.runs.attempts(task), None) is not None
