"""Death of a process before one of its changes of a file, as SIGKILL or a node's end bring it about."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simulated_faults import ProcessKilledError

CHANGES = ("os.rename", "os.symlink", "os.link", "os.mkdir", "os.remove")
_left: list[int] = []
"""Changes of files before the process is killed; empty while nothing is counted."""
_made: set[str] = set()
"""Folders that were made. One whose parent was not there, or was swept away just then, is made again."""


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if _left and event in CHANGES and threading.current_thread() is threading.main_thread():
        if event == "os.mkdir":
            if arguments[0] in _made:
                return
            _made.add(arguments[0])
        _left[0] -= 1
        if _left[0] < 0:
            _left.clear()
            raise ProcessKilledError


sys.addaudithook(_count)


@contextmanager
def killed_before_change(number: int) -> Iterator[None]:
    """The process dies before its change of a file with this number, from 0."""
    _left.append(number)
    try:
        yield
        assert not _left, f"there are not so many changes: {_left[0]} more"
    finally:
        _left.clear()
        _made.clear()
