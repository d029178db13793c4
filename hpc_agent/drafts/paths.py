"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def typed_path(text: str, base: Path) -> Path:
    """``text`` with ``~`` and ``$VARIABLES`` put in, below ``base`` unless absolute; links and ``..`` followed."""
    # os.path leaves "~nobody" as it is, where Path.expanduser would raise.
    return (base / os.path.expandvars(os.path.expanduser(text))).resolve()  # noqa: PTH111
