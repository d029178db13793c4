"""Which scheduler serves this machine. A new one is a module beside this and a line here."""

from __future__ import annotations

import shutil
import socket

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.schedulers.local import LocalScheduler
from hpc_agent.schedulers.slurm_driver import SlurmScheduler


def create(settings: HpcSettings, clock: Clock) -> Scheduler:
    """The scheduler that the settings name; ``auto`` is Slurm where ``sbatch`` is on PATH, else the local one."""
    kind = settings.scheduler
    if kind == "auto":
        kind = "slurm" if shutil.which("sbatch") else "local"
    if kind == "slurm":
        return SlurmScheduler(settings.slurm, cluster=settings.cluster)
    # The root may be shared by several machines; processes are not.
    folder = settings.root.expanduser() / "local" / socket.gethostname()
    # A task gets term_grace to end; its agent needs a moment more to report.
    return LocalScheduler(settings.local, folder, clock, cluster=settings.cluster, grace=settings.term_grace + 10)
