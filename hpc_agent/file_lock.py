"""Lock on an open file (flock), which the kernel drops with its holder's process, however that ends.

Between processes of one machine. On a shared file system, where flock may be missing or forgotten, ``lease`` serves.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hpc_agent.clock import Clock

_TURN_S = 0.05


def lock(descriptor: int, *, shared: bool = False) -> None:
    """Wait for the lock; it ends when ``descriptor`` is closed.

    Raises:
        OSError: this file system has no locks.
    """
    fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def try_lock(descriptor: int) -> bool:
    """Take the lock for us alone if no other process has it; False if one has.

    Raises:
        OSError: this file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked_within(descriptor: int, seconds: float, clock: Clock) -> Iterator[bool]:
    """Whether we have the lock, after waiting for it so long at most.

    It is given back at the end even if a process that another thread has just forked still has ``descriptor`` open.

    Raises:
        OSError: this file system has no locks.
    """
    deadline = clock.monotonic() + seconds
    while not (is_ours := try_lock(descriptor)) and clock.monotonic() <= deadline:
        clock.sleep(_TURN_S)
    try:
        yield is_ours
    finally:
        if is_ours:
            with suppress(OSError):  # the end of all who have it open does as well
                fcntl.flock(descriptor, fcntl.LOCK_UN)
