"""Identifiers that cannot be swapped for one another."""

from __future__ import annotations

import re
from typing import NewType

_ID = re.compile("[0-9A-Za-z][0-9A-Za-z_-]{0,63}")

TaskId = NewType("TaskId", str)
"""32 hexadecimal digits."""
QueueId = NewType("QueueId", str)
"""32 hexadecimal digits."""
WorkerId = NewType("WorkerId", str)
"""Any text, by custom ``<host>:<what>``."""
JobId = NewType("JobId", str)
"""Slurm's number (``123``, an array element ``123_4``), or the local scheduler's."""
AttemptId = NewType("AttemptId", str)
"""8 hexadecimal digits; see ``domain.attempt``."""


def is_id(value: object) -> bool:
    """Whether a server's id can be one: it becomes a folder's name, a part of a job's name and of scripts.

    Servers give 32 hexadecimal digits. Anything that is a path, an option or more than a line is none.
    """
    return isinstance(value, str) and _ID.fullmatch(value) is not None
