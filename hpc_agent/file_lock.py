"""Lock on an open file (flock), which the kernel drops with its holder's process, however that ends.

Between processes of one machine. On a shared file system, where flock may be missing or forgotten, ``lease`` serves.
"""

from __future__ import annotations

import fcntl


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
