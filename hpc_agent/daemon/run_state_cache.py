"""Run directories that need not be read in each pass: of tasks that wait, here or in the scheduler.

What is in them changes by this daemon's own hand only, or after something that shows elsewhere: a job that starts, an
entry that leaves its queue. Another daemon may have had the queue for a while, so that nothing is kept for long.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpc_agent.daemon.run_state import RunDirectoryState
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.job import JobState, LiveJob


class RunStateCache:
    def __init__(self) -> None:
        self._kept: dict[Attempt, RunDirectoryState] = {}

    def get(self, attempt: Attempt, *, has_entry: bool, jobs: Sequence[LiveJob]) -> RunDirectoryState | None:
        """What was read before, if it still holds; None: read it now. ``jobs``: those that are listed under its
        name."""
        state = self._kept.get(attempt)
        if state is not None and has_entry and _waits(state, jobs):
            return state
        self._kept.pop(attempt, None)
        return None

    def keep(self, attempt: Attempt, state: RunDirectoryState, *, has_entry: bool, jobs: Sequence[LiveJob]) -> None:
        """Keep what was read just now, if it will hold."""
        if has_entry and _waits(state, jobs):
            self._kept[attempt] = state

    def drop(self, attempt: Attempt) -> None:
        """This daemon is about to write there."""
        self._kept.pop(attempt, None)

    def clear(self) -> None:
        self._kept.clear()


def _waits(state: RunDirectoryState, jobs: Sequence[LiveJob]) -> bool:
    """Whether nothing was begun yet, or the job that was submitted, and no other, waits for its first start."""
    if state.claim or state.report or state.staging:
        return False
    submission = state.submission
    if submission is None:
        return not jobs
    return (
        submission.known
        and len(jobs) == 1
        and jobs[0].id == submission.job
        and jobs[0].state is JobState.PENDING
        and not jobs[0].restarts
    )
