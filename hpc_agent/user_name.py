"""Name of the Unix user that runs this process."""

from __future__ import annotations

import os
import pwd


def user_name() -> str:
    """Its number where it has no name: in some containers, or while a directory service is away."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
