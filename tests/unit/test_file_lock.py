"""Lock on a file: who has it, and when it is free again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from manual_clock import ManualClock

from hpc_agent.file_lock import locked_within, try_lock


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """One file, opened by two."""
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600) for _ in range(2))
    yield first, second
    os.close(first)
    os.close(second)


def test_a_lock_that_another_has_is_waited_for_so_long(opened: tuple[int, int]) -> None:
    first, second = opened
    clock = ManualClock()
    begun = clock.monotonic()
    assert try_lock(first)
    with locked_within(second, 5, clock) as is_ours:
        assert not is_ours
    assert 5 < clock.monotonic() - begun < 6
    assert not try_lock(second)


def test_it_is_free_afterwards_though_a_process_that_was_forked_has_the_file_open(opened: tuple[int, int]) -> None:
    """One that another thread starts has it open until its exec."""
    first, second = opened
    with locked_within(first, 5, ManualClock()) as is_ours:
        assert is_ours
        assert not try_lock(second)
        forked = os.dup(first)  # the same open file, as a process that is forked has it
    try:
        assert try_lock(second)
    finally:
        os.close(forked)
