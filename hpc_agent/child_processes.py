"""Child processes and all their descendants, those too that forked away: the kernel makes orphans our children.

A script may start a server with ``setsid``, or a daemon that forks twice, which would run on after the task.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import psutil

_SET_PARENT_DEATH_SIGNAL = 1
_SET_CHILD_SUBREAPER = 36


class TrackedChild(Protocol):
    @property
    def pid(self) -> int: ...


C = TypeVar("C", bound=TrackedChild)

_lock = threading.Lock()
_waited_for: set[int] = set()
"""Children that a part of this program waits for, to get their exit code."""


def start_tracked(start: Callable[[], C]) -> C:
    """Start a child whose end its caller waits for."""
    with _lock:
        child = start()
        _waited_for.add(child.pid)
    return child


def reaped(pid: int) -> None:
    """Its end has been waited for: the number may come again, as another process's."""
    _waited_for.discard(pid)


def become_subreaper() -> None:
    """From now on orphans among our descendants become our children, not those of process 1."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends, whatever it ends of; to be called in the
    new process, before it becomes a program."""
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    try:
        import ctypes
    except ImportError:  # a Python without libffi, as in small images: orphans then go to process 1 of the container
        return
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def reap_orphans() -> None:
    """Reap adopted children that have ended."""
    with _lock:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in _waited_for:
                return
            with contextlib.suppress(ChildProcessError):
                os.waitpid(ended.si_pid, os.WNOHANG)


def surviving_descendants(family: int) -> list[int]:
    """Living descendants of ours but for helpers: the process ``family`` and what it started, wherever it went."""
    import psutil  # not for hpc-task, which starts git and looks at no process

    found: list[int] = []
    for child in psutil.Process().children():
        if child.pid in _waited_for and child.pid != family:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [process.pid for process in (child, *child.children(recursive=True)) if _lives(process)]
    return found


def _lives(process: psutil.Process) -> bool:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
