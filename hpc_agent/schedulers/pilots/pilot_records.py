"""What one pilot writes on the board: where a file server fails it, again until it is written."""

from __future__ import annotations

from hpc_agent.schedulers.pilots.board import PilotClaim, TaskBoard, TaskEnd


class PilotRecords:
    """Claims and ends of one pilot's tasks. ``flush`` is called over and over."""

    def __init__(self, board: TaskBoard, job: str) -> None:
        self._board = board
        self._job = job
        self._ends: dict[int, TaskEnd] = {}
        self._to_put_back: set[int] = set()

    @property
    def is_written(self) -> bool:
        return not self._ends and not self._to_put_back

    def take(self, number: int, claim: PilotClaim) -> bool:
        """As ``TaskBoard.take``.

        Raises:
            OSError: the claim may be there; it is dropped as soon as that is possible, and the task is not ours.
        """
        try:
            return self._board.take(number, claim)
        except OSError:
            self._to_put_back.add(number)
            raise

    def put_back(self, number: int) -> None:
        """Leave a task of ours to other pilots; nothing of it runs."""
        self._to_put_back.add(number)

    def end(self, number: int, end: TaskEnd) -> None:
        """A task of ours has ended."""
        self._ends[number] = end

    def flush(self) -> None:
        """Write what is not written.

        Raises:
            OSError, CorruptFileError: some of it is still to be written.
        """
        for number, end in list(self._ends.items()):
            self._board.write_end(number, end)
            del self._ends[number]
        for number in list(self._to_put_back):
            claim = self._board.claim(number)
            if claim is not None and claim.pilot == self._job:
                self._board.drop_claim(number)
            self._to_put_back.discard(number)
