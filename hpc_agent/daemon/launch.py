"""How every job of this daemon calls us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.daemon.owner import JobConfigs
from hpc_agent.daemon.terms import Naming, Terms


@dataclass(frozen=True)
class Launch:
    """Server and keys stand in ``config_file``, readable by its owner only; ``agent`` is the program as a list."""

    config_file: Path
    agent: Sequence[str]
    terms: Terms
    naming: Naming
    job_configs: JobConfigs | None = None
    """Where jobs call the server with credentials of their own."""
