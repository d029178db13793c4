"""Progress lines: what a long action tells the person who waits for it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Takes one line, for the task's console or a terminal."""
