"""The section ``hpc.slurm``: how this site's Slurm wants to be asked."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from hpc_agent.config.types import BackendSettings, Interval, Positive


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
    requests_per_second: Annotated[
        float,
        Meta(
            ge=0,
            description="Slurm commands a second that one daemon or command starts at most, counted over a while: "
            "`rl_refill_rate` of sites that limit users; submissions wait for their turn. 0: no limit.",
        ),
    ] = 2
    request_burst: Annotated[
        Positive, Meta(description="Slurm commands at once after a rest: `rl_bucket_size` of sites that limit users.")
    ] = 30
    submissions_at_once: Annotated[Positive, Meta(description="`sbatch` processes side by side.")] = 4
    array_size: Annotated[
        Positive,
        Meta(
            description="Tasks of one queue that ask for the same go to Slurm as one job array, so many at most "
            "(and no more than Slurm's MaxArraySize). 1: each is a job of its own."
        ),
    ] = 1
    array_running: Annotated[
        int, Meta(ge=0, description="Elements of one job array that run at the same time, at most. 0: no limit.")
    ] = 0
    sbatch_args: Annotated[tuple[str, ...], Meta(description="Further sbatch arguments for every job.")] = ()
    srun_args: Annotated[
        tuple[str, ...],
        Meta(description="Further srun arguments for the ranks of tasks on many nodes: `--mpi=pmix`."),
    ] = ()


Settings = SlurmSettings
