"""The section ``hpc.slurm``: how this site's Slurm wants to be asked."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from hpc_agent.config.types import BackendSettings, Interval


class SlurmSettings(BackendSettings, frozen=True, kw_only=True):
    """``hpc.slurm``: the site's Slurm."""

    scratch_variables: ClassVar[tuple[str, ...]] = ("SLURM_TMPDIR",)

    gpu_flag: Annotated[
        Literal["gres", "gpus", "gpus-per-node"], Meta(description="How this site wants GPUs requested.")
    ] = "gres"
    memory_flag: Annotated[Literal["mem", "mem-per-cpu"], Meta(description="How this site wants memory requested.")] = (
        "mem"
    )
    accounting: Annotated[
        Literal["auto", "sacct", "none"], Meta(description="Whether `sacct` can be asked how a job ended.")
    ] = "auto"
    sbatch_timeout: Annotated[
        Interval, Meta(description="How long one `sbatch` may take; it retries inside for up to 120 s.")
    ] = 150
    command_timeout: Annotated[Interval, Meta(description="How long one `squeue`, `sacct` or `scancel` may take.")] = 60
    sbatch_args: Annotated[tuple[str, ...], Meta(description="Further sbatch arguments for every job.")] = ()
    srun_args: Annotated[
        tuple[str, ...],
        Meta(description="Further srun arguments for the ranks of tasks on many nodes: `--mpi=pmix`."),
    ] = ()


Settings = SlurmSettings
