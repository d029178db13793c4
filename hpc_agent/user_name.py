"""Name of the Unix user that runs this process."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """Its number where it has no name: a uid may have no line in the password file, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
