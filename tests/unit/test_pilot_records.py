"""A pilot's records on a file server that fails it for a while."""

from __future__ import annotations

from pathlib import Path

import pytest
from manual_clock import ManualClock

from hpc_agent.domain.job import JobState
from hpc_agent.domain.pilot_slots import Slot
from hpc_agent.schedulers.pilots.board import PilotClaim, PilotTask, TaskBoard, TaskEnd
from hpc_agent.schedulers.pilots.pilot_records import PilotRecords

NOW = ManualClock().now()
OURS = PilotClaim(NOW, "7")


@pytest.fixture
def board(tmp_path: Path) -> TaskBoard:
    found = TaskBoard(tmp_path / "board")
    for _ in range(2):
        found.add(PilotTask("job", "q", "/s", "/", "/o", Slot(), 60, NOW))
    return found


def away(board: TaskBoard, *, back: bool = False) -> None:
    """The folder is moved away, as a file server that is gone, and back."""
    here, there = board.path / "open", board.path / "elsewhere"
    if back:
        there.rename(here)
    else:
        here.rename(there)


def test_an_end_is_written_when_the_files_are_back(board: TaskBoard) -> None:
    records = PilotRecords(board, "7")
    assert records.take(0, OURS)
    records.end(0, TaskEnd(JobState.COMPLETED, NOW))
    away(board)
    for _ in range(2):
        with pytest.raises(OSError, match="No such file"):
            records.flush()
        assert not records.is_written
    away(board, back=True)
    records.flush()
    assert records.is_written
    assert board.end(0) == TaskEnd(JobState.COMPLETED, NOW)


def test_a_task_that_is_put_back_is_free_for_others(board: TaskBoard) -> None:
    records = PilotRecords(board, "7")
    assert records.take(0, OURS)
    records.put_back(0)
    assert not records.is_written
    records.flush()
    assert board.take(0, PilotClaim(NOW, "8"))


def test_another_pilots_claim_is_left_alone(board: TaskBoard) -> None:
    records = PilotRecords(board, "7")
    assert board.take(1, PilotClaim(NOW, "8"))
    records.put_back(1)  # as after a claim of which it is not known whether it was made
    records.flush()
    claim = board.claim(1)
    assert claim is not None and claim.pilot == "8"
