"""Which scheduler serves this machine. A new one is a module beside this and a line here."""

from __future__ import annotations

import shutil
import socket
from typing import Literal

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers.base import JobOrigin, Scheduler
from hpc_agent.schedulers.local.jobs import Share
from hpc_agent.schedulers.local.scheduler import LocalScheduler
from hpc_agent.schedulers.slurm.driver import SlurmScheduler


def kind(settings: HpcSettings) -> Literal["slurm", "local"]:
    """The scheduler that the settings name; ``auto`` is Slurm where ``sbatch`` is on PATH, else the local one."""
    if settings.scheduler == "auto":
        return "slurm" if shutil.which("sbatch") else "local"
    return settings.scheduler


def create(settings: HpcSettings, clock: Clock, share: Share | None = None) -> Scheduler:
    """``share``: the part of this machine that is ours, for the local scheduler."""
    if kind(settings) == "slurm":
        return SlurmScheduler(settings.slurm, cluster=settings.cluster)
    # The root may be shared by several machines; processes are not.
    folder = settings.root.expanduser() / "local" / socket.gethostname()
    # A task gets term_grace to end; its agent needs a moment more to report.
    grace = settings.term_grace + 10
    return LocalScheduler(settings.local, folder, clock, cluster=settings.cluster, grace=grace, share=share)


def about(scheduler: Scheduler) -> JobOrigin:
    """What serves the jobs, also where it gives no answer now."""
    try:
        return scheduler.about()
    except SchedulerUnavailableError as error:
        return JobOrigin(f"{scheduler.name}, which does not answer", (str(error),))
