"""Slurm as a backend: what the rest of the program may ask."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.ids import JobId
from hpc_agent.schedulers.base import Backend, CurrentJobClient, JobVariables, Scheduler, ScriptLanguage, Share
from hpc_agent.schedulers.slurm.settings import SlurmSettings

_FOREIGN = re.compile(
    # docs/internals/slurm.md#command-environment
    r"(SLURM_(?!CONF$)|SBATCH_|SALLOC_|SRUN_|SQUEUE_|SACCT_|SCANCEL_|SINFO_|SCONTROL_|PMIX?_)"
)
_LAUNCH_FAILURE = re.compile(r"Error running slurm prolog.*|.*couldn't (?:open|create).*batch script.*")


class SlurmBackend(Backend):
    """See ``schedulers.base.Backend``."""

    name = "slurm"
    is_batch_system = True
    job_prefixes = ("SLURM_",)

    def is_installed(self) -> bool:
        return shutil.which("sbatch") is not None

    def create(
        self, settings: HpcSettings, clock: Clock, *, share: Share | None = None, timeout: float | None = None
    ) -> Scheduler:
        from hpc_agent.schedulers.slurm.driver import SlurmScheduler

        own = settings.backend_settings(SlurmSettings)
        if timeout is not None:
            own = msgspec.structs.replace(own, command_timeout=min(timeout, own.command_timeout))
        return SlurmScheduler(own, cluster=settings.cluster)

    def script(self, settings: HpcSettings) -> ScriptLanguage:
        from hpc_agent.schedulers.slurm.script import SbatchScript

        return SbatchScript(settings.backend_settings(SlurmSettings))

    def job_variables(self, environ: Mapping[str, str]) -> JobVariables | None:
        job = own_job_id(environ)
        if job is None:
            return None
        # Where a job is confined to its GPUs by cgroup, CUDA_VISIBLE_DEVICES counts them from 0. That is right for the
        # job's own processes; a container daemon is outside and needs the numbers of the node.
        by_uuid = environ.get("CUDA_VISIBLE_DEVICES", "").startswith(("GPU-", "MIG-"))
        node_numbers = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS") if "SLURM_JOB_GPUS" in environ and not by_uuid else ()
        return JobVariables(
            backend=self.name,
            job=job,
            worker=f"slurm:{job}",
            restart_count=int(environ.get("SLURM_RESTART_COUNT") or 0),
            cluster=environ.get("SLURM_CLUSTER_NAME", ""),
            memory_mb=_granted_mb(environ),
            gpu_variables=node_numbers,
        )

    def current_job(self, job: JobId, environ: Mapping[str, str]) -> CurrentJobClient:
        from hpc_agent.schedulers.slurm.current_job import SlurmCurrentJob

        return SlurmCurrentJob(job, environ)

    def foreign(self, environ: Mapping[str, str]) -> Iterable[str]:
        return filter(_FOREIGN.match, environ)

    def launch_failure(self, output: str) -> str:
        match = _LAUNCH_FAILURE.search(output)
        return match[0] if match else ""


def own_job_id(environ: Mapping[str, str]) -> JobId | None:
    """The id of the job, or array element, whose environment this is, as squeue names it; None for any other."""
    array, index = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if array and index:
        return JobId(f"{array}_{index}")
    job = environ.get("SLURM_JOB_ID")
    return JobId(job) if job else None


def _granted_mb(environ: Mapping[str, str]) -> float | None:
    """0 means all of the node's memory."""
    with suppress(ValueError):
        if node := environ.get("SLURM_MEM_PER_NODE"):
            return float(node) or None
        if cpu := environ.get("SLURM_MEM_PER_CPU"):
            return float(cpu) * int(environ.get("SLURM_CPUS_ON_NODE") or 1) or None
    return None


BACKEND = SlurmBackend()
