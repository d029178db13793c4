"""Private folders to build in, and the removal of those whose builder was killed."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_agent import files
from hpc_agent.envs.node import remove_tree

_LOCK = ".building"
"""Held by the builder with flock(2), which the kernel drops with its process."""


@contextmanager
def make(parent: Path) -> Iterator[Path]:
    """Enter with an empty folder of our own in ``parent``, a local folder; on leaving it is gone.

    Raises:
        OSError: the disk is full or broken.
    """
    files.ensure_directory(parent)
    _remove_abandoned(parent)
    work = parent / secrets.token_hex(8)
    lock = parent / f"{work.name}{_LOCK}"
    # The lock first: a folder without one would be nobody's.
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        work.mkdir(mode=0o700)
        yield work
    finally:
        remove_tree(work)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _remove_abandoned(parent: Path) -> None:
    for lock in parent.glob(f"*{_LOCK}"):
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            work = lock.with_name(lock.name.removesuffix(_LOCK))
            remove_tree(work)
            # An installer that outlived its builder may still write there: then next time.
            if not work.exists():
                lock.unlink(missing_ok=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
