"""Signal handlers of ClearML's SDK in a running program, seen from outside.

The SDK (read and measured in 2.1.12) catches the signals of ``_CAUGHT``. For SIGTERM its handler looks up the one that
was there before it; the default is the number 0, which it takes for none, and it returns: the program goes on. SIGINT
it passes on to Python's own handler, which raises KeyboardInterrupt, so that ``finally`` blocks and ``atexit`` run.
Processes that such a program forks inherit this.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

_CAUGHT = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGSEGV,
    signal.SIGABRT,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGQUIT,
)
_CAUGHT_MASK = sum(1 << (number - 1) for number in _CAUGHT)
_GO_MASK = 1 << (signal.SIGURG - 1)
"""Programs in Go, such as podman and docker, catch all that, and SIGURG, by which Go switches between its threads."""
_LINE = re.compile(r"^SigCgt:\s*([0-9a-f]+)$", re.MULTILINE)


def has_sdk_handlers(pid: int) -> bool:
    """Whether a process catches all signals that the SDK catches. False for one that is gone.

    A handler of its own that the program set for one of them is not distinguished.
    """
    try:
        return catches_as_sdk(Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace"))
    except OSError:
        return False


def catches_as_sdk(status: str) -> bool:
    """The same from the text of ``/proc/<pid>/status``."""
    found = _LINE.search(status)
    caught = int(found[1], 16) if found else 0
    return caught & _CAUGHT_MASK == _CAUGHT_MASK and not caught & _GO_MASK
