"""The section ``hpc.gridengine``: how this site's Grid Engine wants to be asked."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from hpc_agent.config.types import BackendSettings, Interval, Seconds


class GridEngineSettings(BackendSettings, frozen=True, kw_only=True):
    """``hpc.gridengine``: the site's Grid Engine."""

    gpu_resource: Annotated[str, Meta(description="Name of the resource that counts GPUs (`-l gpu=2`).")] = "gpu"
    memory_resource: Annotated[
        str, Meta(description="Resource for memory, per slot (`-l h_vmem=4096M`); memory is not requested when empty.")
    ] = "h_vmem"
    parallel_environment: Annotated[
        str, Meta(description="Parallel environment for jobs with several CPUs, all on one node (`-pe smp 4`).")
    ] = "smp"
    command_timeout: Annotated[Interval, Meta(description="How long one `qsub`, `qstat` or `qacct` may take.")] = 60
    accounting_delay: Annotated[
        Seconds, Meta(description="How long the record of an ended job may take into accounting (`flush_time`).")
    ] = 30
    qsub_args: Annotated[tuple[str, ...], Meta(description="Further qsub arguments for every job.")] = ()


Settings = GridEngineSettings
