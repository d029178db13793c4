"""Index of the attempts that are not settled: an empty file for each, so that no daemon lists all run directories.

A file is made before its run directory, and removed after ``settled.json`` was written: a death in between leaves a
file too many, which costs its readers a look. Run directories of versions without the index are found by ``Pruner``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, TaskId
from hpc_agent.file_records import ensure_directory

_COMPLETE = "complete"
_NAME = re.compile(r"(.+)\.([0-9a-f]{8})")


class OpenAttempts(msgspec.Struct, frozen=True):
    """``runs/.open/<task>.<attempt>``. Any of it may be deleted at any time: then all is listed again."""

    path: Path

    def add(self, attempt: Attempt) -> None:
        self._touch(f"{attempt.task}.{attempt.id}")

    def remove(self, attempt: Attempt) -> None:
        (self.path / f"{attempt.task}.{attempt.id}").unlink(missing_ok=True)

    def load(self) -> set[Attempt] | None:
        """The attempts that are open; None where the run directories themselves are to be listed."""
        try:
            names = {entry.name for entry in self.path.iterdir()}
        except FileNotFoundError:
            return None
        if _COMPLETE not in names:
            return None
        found = (_NAME.fullmatch(name) for name in names)
        return {Attempt(TaskId(match[1]), AttemptId(match[2])) for match in found if match}

    def age(self, attempt: Attempt, newer: Path) -> float:
        """Seconds from its file to the file ``newer``, both by the clock of the file server; 0 without either."""
        try:
            return newer.stat().st_mtime - (self.path / f"{attempt.task}.{attempt.id}").stat().st_mtime
        except OSError:
            return 0.0

    def mark_complete(self) -> None:
        """Each open attempt has its file by now."""
        self._touch(_COMPLETE)

    def _touch(self, name: str) -> None:
        ensure_directory(self.path, mode=0o700)
        os.close(os.open(self.path / name, os.O_WRONLY | os.O_CREAT, 0o600))
