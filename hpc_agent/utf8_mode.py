"""UTF-8 for all our files, names and programs, whatever the locale: Python's UTF-8 mode (PEP 540)."""

from __future__ import annotations

import io
import os
import sys

VARIABLE = "PYTHONUTF8"
"""Switches the mode on in Python programs that we start, the user's own among them."""


def ensure_utf8_mode() -> None:
    """Start this program again in UTF-8 mode if the locale has another encoding, before anything is read or decoded.

    The mode can be chosen at an interpreter's start only. In a UTF-8 locale, and in C or POSIX, where Python takes
    the mode by itself, nothing is done. The process, its number and its open files stay the same.
    """
    if not sys.flags.utf8_mode and sys.getfilesystemencoding() != "utf-8":
        os.environ[VARIABLE] = "1"
        # By option too: ``-I`` and ``-E`` in the original arguments would have the variable ignored.
        from hpc_agent.process.background import replace_process

        replace_process([sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a file need not be UTF-8, and PYTHONIOENCODING may ask for something smaller.
        sys.stdout.reconfigure(errors="backslashreplace")
