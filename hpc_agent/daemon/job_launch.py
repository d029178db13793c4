"""How every job of this daemon calls us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.daemon.job_configs import JobConfigs
from hpc_agent.daemon.options import DaemonOptions, JobNaming


@dataclass(frozen=True)
class JobLaunchConfig:
    """Server and keys stand in ``config_file``, readable by its owner only; ``agent`` is the program as a list."""

    config_file: Path
    agent: Sequence[str]
    terms: DaemonOptions
    naming: JobNaming
    job_configs: JobConfigs | None = None
    """Where jobs call the server with credentials of their own."""
