"""How every job of this daemon calls us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Launch:
    """Server and keys stand in ``config_file``, readable by its owner only; ``agent`` is the program as a list."""

    config_file: Path
    agent: Sequence[str]
