"""Copy of the database of a server that may be running: one moment of it, checked before it has its name."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from hpc_agent.errors import ConfigError
from hpc_agent.server.store.integrity import DamagedDatabaseError, check

_PAGES = 4096
"""That are copied between two calls of ``progress``."""
_BUSY_SECONDS = 30.0


def back_up(database: Path, target: Path, progress: Callable[[int, int], None] = lambda done, pages: None) -> int:
    """Copy ``database`` to the file ``target``, which is replaced once the copy is complete and checked.

    The copy is what was committed when it began; the server goes on writing meanwhile. ``progress`` gets the pages that
    are copied and all pages. Returns the copy's size in bytes.

    Raises:
        ConfigError: there is no such database, it is damaged, or the copy cannot be written.
    """
    if not database.is_file():
        raise ConfigError(f"there is no database {database}: name the server's data folder with --data-dir")
    if target.is_dir():
        raise ConfigError(f"{target} is a folder: name the file that the copy is written to")
    if target.exists() and target.samefile(database):
        raise ConfigError(f"{target} is the server's own database: name another file")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        # As private as the database: SQLite would create it with the umask's mode.
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        _copy(database, part, progress)
        _sync(part)
        part.replace(target)
        _sync(target.parent)
    except (sqlite3.Error, OSError, DamagedDatabaseError) as error:
        raise ConfigError(f"{database} could not be copied to {target}: {error}") from error
    finally:
        for left in (part, Path(f"{part}-journal"), Path(f"{part}-wal"), Path(f"{part}-shm")):
            left.unlink(missing_ok=True)
    return target.stat().st_size


def _copy(database: Path, part: Path, progress: Callable[[int, int], None]) -> None:
    with contextlib.closing(_opened(database)) as source, contextlib.closing(_opened(part)) as copy:
        # Within one reading transaction: SQLite starts a copy again whenever another process has written.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(copy, pages=_PAGES, progress=lambda _, left, pages: progress(pages - left, pages))
        source.execute("ROLLBACK")
        # One file, not a file and its log.
        copy.execute("PRAGMA journal_mode=DELETE")
        check(copy, float("inf"))


def _opened(path: Path) -> sqlite3.Connection:
    """Open a database that exists."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
