"""Launcher that binds its life to its parent's and then becomes another program.

    python -I -S exec_launcher.py PARENT_PID ERROR_FD PROGRAM [ARGUMENT …]

Run by path with the standard library alone, so that it starts quickly (about 40 ms on a busy machine). PR_SET_PDEATHSIG
survives exec. Set between fork and exec in the parent instead (``preexec_fn``), it would run Python code in the copy
of a process whose other threads may have held any lock.
"""

from __future__ import annotations

import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1


def main() -> None:
    parent, error_fd = int(sys.argv[1]), int(sys.argv[2])
    argv = sys.argv[3:]
    os.set_inheritable(error_fd, False)
    # Python changes these for itself; the program gets what any program starts with.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _die_with(parent)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(error_fd, str(error.errno).encode())
    os._exit(127)


def _die_with(parent: int) -> None:
    try:
        import ctypes
    except ImportError:  # a Python without libffi, as in small images: then nothing ends the program with its parent
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before that was set


if __name__ == "__main__":
    main()
