"""News of jobs: an empty file for each attempt that has ended, and each pilot that has started, in one folder a queue.

The daemon lists that folder between two passes, so that it notices an end at once without a query of the scheduler or a
look at each run directory. They are not evidence: without them the next pass comes later.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import QueueId
from hpc_agent.file_records import ensure_directory


class JobNews:
    """``runs``: the folder of the run directories."""

    def __init__(self, runs: Path) -> None:
        self._folder = runs / ".news"

    def publish(self, queue: QueueId, attempt: Attempt) -> None:
        """
        Raises:
            OSError: it was not written.
        """
        folder = ensure_directory(self._folder / queue, mode=0o700)
        (folder / f"{attempt.task}.{attempt.id}").touch()

    def folder(self, queue: QueueId) -> Path:
        """For others that publish: any file in it is news."""
        return self._folder / queue

    def take(self, queues: Iterable[QueueId]) -> bool:
        """Whether there are any for these queues; they are removed."""
        found = [path for queue in queues for path in _listed(self._folder / queue)]
        for path in found:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        return bool(found)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
