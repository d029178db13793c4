"""GPU and memory requests in a site's own flags: some forbid one spelling, some demand it.

See docs/internals/slurm.md#site-dialects.
"""

from __future__ import annotations

from hpc_agent.config.settings import SlurmSettings
from hpc_agent.domain.resources import Resources


def gpu_flag(resources: Resources, site: SlurmSettings) -> str:
    """The sbatch option that asks for the GPUs of each node; empty without GPUs."""
    if not resources.gpus:
        return ""
    kind = f"{resources.gpu_type}:" if resources.gpu_type else ""
    if site.gpu_flag == "gres":
        return f"--gres=gpu:{kind}{resources.gpus}"
    if site.gpu_flag == "gpus":
        return f"--gpus={kind}{resources.gpus * resources.nodes}"
    return f"--gpus-per-node={kind}{resources.gpus}"


def memory_flag(resources: Resources, site: SlurmSettings) -> str:
    """The sbatch option that asks for the memory of each node; empty when the partition's default is to hold."""
    if resources.memory_mb is None:
        return ""
    if site.memory_flag == "mem":
        return f"--mem={resources.memory_mb}M"
    # Rounded down: all CPUs together get no more than was checked against the queue's maximum. 0 would be no limit.
    return f"--mem-per-cpu={max(resources.memory_mb // (resources.cpus or 1), 1)}M"
