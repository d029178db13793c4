"""Private folders to build in, and the removal of those whose builder was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_agent import file_records
from hpc_agent.envs.node import remove_tree

_LOCK = ".building"
"""Held by the builder with flock(2), which the kernel drops with its process."""

_ABANDONED = 3600.0


@contextmanager
def make(parent: Path) -> Iterator[Path]:
    """Enter with an empty folder of our own in ``parent``, a local folder; on leaving it is gone.

    Raises:
        OSError: the disk is full or broken.
    """
    file_records.ensure_directory(parent)
    work = parent / secrets.token_hex(8)
    lock = parent / f"{work.name}{_LOCK}"
    # The lock first: a folder without one would be nobody's.
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _remove_abandoned(parent, os.fstat(descriptor).st_mtime)
        work.mkdir(mode=0o700)
        yield work
    finally:
        remove_tree(work)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _remove_abandoned(parent: Path, now: float) -> None:
    for entry in parent.iterdir():
        lock = entry if entry.name.endswith(_LOCK) else entry.with_name(f"{entry.name}{_LOCK}")
        with contextlib.suppress(FileNotFoundError):  # another one is at it too
            if lock.exists():
                _remove_unless_locked(lock)
            elif now - entry.stat().st_mtime > _ABANDONED:
                # Made again by an installer that outlived its builder.
                remove_tree(entry)


def _remove_unless_locked(lock: Path) -> None:
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(lock.with_name(lock.name.removesuffix(_LOCK)))
        lock.unlink(missing_ok=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
