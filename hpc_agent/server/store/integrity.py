"""Check of a database file: whether SQLite can read all of it."""

from __future__ import annotations

import sqlite3

from hpc_agent.clock import SYSTEM
from hpc_agent.logs import EventLog

_STEPS = 10_000
"""Of SQLite's machine, between two looks at the clock."""

log = EventLog("server.store")


class DamagedDatabaseError(Exception):
    """The database is damaged; the message is SQLite's."""


def check(connection: sqlite3.Connection, seconds: float) -> bool:
    """Read every page and row, for so many seconds at most; returns whether all was read.

    Raises:
        DamagedDatabaseError: a page or row is not as it must be.
    """
    end = SYSTEM.monotonic() + seconds
    connection.set_progress_handler(lambda: SYSTEM.monotonic() > end, _STEPS)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError:
        if SYSTEM.monotonic() <= end:
            raise
        log.warning("database.check_cut_short", seconds=seconds)
        return False
    except sqlite3.DatabaseError as error:
        raise DamagedDatabaseError(str(error)) from error
    finally:
        connection.set_progress_handler(None, _STEPS)
    if found != "ok":
        raise DamagedDatabaseError(" ".join(str(found).split()))
    return True
