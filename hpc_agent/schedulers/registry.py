"""The backends. Adding a batch system is a line here and a package of its name next to this module.

A package has two modules that are found by name: ``settings``, whose class ``Settings`` is its section of the
configuration, and ``backend``, whose object ``BACKEND`` is a ``schedulers.base.Backend``. Nothing else is imported
before it is needed: the configuration reads ``settings`` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hpc_agent.config.types import BackendSettings

BATCH_SYSTEMS = (
    "slurm",
    "gridengine",
)
"""``hpc.scheduler: auto`` takes the first of them whose commands are found."""

LOCAL = "local"
"""Jobs as processes of this machine: always installed, so ``auto`` takes it where no batch system is."""

BACKENDS = (*BATCH_SYSTEMS, LOCAL)

PILOTS = "pilots"
"""Tasks in a pilot, a job of ours that runs many of them: no setting names it, it is in front of a batch system."""


QUERY_COMMANDS = frozenset(
    {
        *("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr", "sprio", "sstat", "srun"),
        *("qsub", "qstat", "qacct", "qdel", "qhost", "qconf"),
    }
)
"""Commands that cost a scheduler's controller or its accounting a request; ``hpc-agent stats`` counts them."""


def settings_of(name: str) -> type[BackendSettings]:
    """The class of a backend's section, ``hpc.<name>``."""
    kind: type[BackendSettings] = import_module(f"hpc_agent.schedulers.{name}.settings").Settings
    return kind


def load(name: str) -> Any:
    """``BACKEND`` of a backend's package, a ``schedulers.base.Backend``."""
    return import_module(f"hpc_agent.schedulers.{name}.backend").BACKEND
