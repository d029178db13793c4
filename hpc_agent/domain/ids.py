"""Identifiers that cannot be swapped for one another."""

from __future__ import annotations

from typing import NewType

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
