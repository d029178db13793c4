"""Slurm as a backend: what the rest of the program may ask."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain import duration
from hpc_agent.domain.ids import JobId
from hpc_agent.schedulers.base import (
    Backend,
    CurrentJobClient,
    JobVariables,
    Scheduler,
    ScriptLanguage,
    Share,
    UserCommands,
)
from hpc_agent.schedulers.cluster import ClusterClient
from hpc_agent.schedulers.inspector import JobInspector
from hpc_agent.schedulers.slurm.array_script import OWN_JOB_ID
from hpc_agent.schedulers.slurm.settings import SlurmSettings

if TYPE_CHECKING:
    from hpc_agent.schedulers.slurm.array_driver import SlurmArrays
    from hpc_agent.schedulers.slurm.driver import SlurmScheduler
    from hpc_agent.schedulers.slurm.job_steps import SlurmJobSteps

_FOREIGN = re.compile(
    # docs/internals/slurm.md#command-environment
    r"(SLURM_(?!CONF$)|SBATCH_|SALLOC_|SRUN_|SQUEUE_|SACCT_|SCANCEL_|SINFO_|SCONTROL_|PMIX?_)"
)
_TIME_OPTION = re.compile(r"^#SBATCH\s+(?:--time[= ]|-t\s*)(\S+)", re.MULTILINE)
_FIRST_SPECIAL_STEP = 0xFFFFFF00
_LAUNCH_FAILURE = re.compile(r"Error running slurm prolog.*|.*couldn't (?:open|create).*batch script.*")


class SlurmBackend(Backend):
    """See ``schedulers.base.Backend``."""

    name = "slurm"
    is_batch_system = True
    job_prefixes = ("SLURM_", "SLURMD_NODENAME")
    command_variables = ("SLURM_CONF",)
    user_commands = UserCommands(
        is_up="scontrol ping",
        own_jobs="squeue --me",
        accounts="sacctmgr show user $USER withassoc",
        partitions="sinfo --summarize",
    )

    def is_installed(self) -> bool:
        return shutil.which("sbatch") is not None

    def create(
        self, settings: HpcSettings, clock: Clock, *, share: Share | None = None, timeout: float | None = None
    ) -> Scheduler:
        own = settings.backend_settings(SlurmSettings)
        if timeout is not None:
            own = msgspec.structs.replace(own, command_timeout=min(timeout, own.command_timeout))
        return _with_arrays(_slurm(settings, own, clock), settings, own, clock)

    def cluster_client(self, settings: HpcSettings) -> ClusterClient:
        from hpc_agent.schedulers.slurm.cluster_client import SlurmClusterClient

        return SlurmClusterClient(settings.backend_settings(SlurmSettings), cluster=settings.cluster)

    def inspector(self, settings: HpcSettings, clock: Clock) -> JobInspector:
        from hpc_agent.schedulers.slurm.job_inspector import SlurmInspector

        own = settings.backend_settings(SlurmSettings)
        slurm = _slurm(settings, own, clock)
        return SlurmInspector(slurm, _with_arrays(slurm, settings, own, clock))

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
            step_processes=int(environ.get("SLURM_STEP_NUM_TASKS") or 1),
            cluster=environ.get("SLURM_CLUSTER_NAME", ""),
            nodes=int(_number(environ, "SLURM_JOB_NUM_NODES") or 1),
            # What was asked for, where that is known.
            cpus=_number(environ, "SLURM_CPUS_PER_TASK") or _number(environ, "SLURM_CPUS_ON_NODE"),
            memory_mb=_granted_mb(environ),
            control_group=f"job_{environ.get('SLURM_JOB_ID', '')}",
            gpu_variables=node_numbers,
            node_name=environ.get("SLURMD_NODENAME", ""),
            node_index=int(_number(environ, "SLURM_NODEID") or 0),
            process_index=int(_number(environ, "SLURM_PROCID") or 0),
            in_step=_is_step(environ.get("SLURM_STEP_ID", "")),
        )

    def job_steps(self, settings: HpcSettings, environ: Mapping[str, str]) -> SlurmJobSteps | None:
        if own_job_id(environ) is None:
            return None
        from hpc_agent.schedulers.slurm.job_steps import SlurmJobSteps

        return SlurmJobSteps(settings.backend_settings(SlurmSettings), environ)

    def current_job(self, job: JobId, environ: Mapping[str, str]) -> CurrentJobClient:
        from hpc_agent.schedulers.slurm.current_job import SlurmCurrentJob

        return SlurmCurrentJob(job, environ)

    def foreign(self, environ: Mapping[str, str]) -> Iterable[str]:
        return filter(_FOREIGN.match, environ)

    def time_limit_in(self, script: str) -> float | None:
        match = _TIME_OPTION.search(script)
        if match is None:
            return None
        text = match[1]
        return float(text) * 60 if re.fullmatch(r"[0-9]{1,9}", text) else duration.seconds(text)

    def job_launch_failure(self, output: str) -> str:
        match = _LAUNCH_FAILURE.search(output)
        return match[0] if match else ""


def _slurm(settings: HpcSettings, own: SlurmSettings, clock: Clock) -> SlurmScheduler:
    from hpc_agent.schedulers.slurm.driver import SlurmScheduler

    return SlurmScheduler(own, cluster=settings.cluster, clock=clock)


def _with_arrays(slurm: SlurmScheduler, settings: HpcSettings, own: SlurmSettings, clock: Clock) -> SlurmArrays:
    from hpc_agent.schedulers.slurm.array_driver import SlurmArrays
    from hpc_agent.schedulers.slurm.array_folders import ArrayFolders

    return SlurmArrays(slurm, ArrayFolders(settings.runs / ".arrays"), own, clock)


def own_job_id(environ: Mapping[str, str]) -> JobId | None:
    """The id of the job, or array element, whose environment this is, as squeue names it; None for any other."""
    if own := environ.get(OWN_JOB_ID):
        return JobId(own)
    array, index = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if array and index:
        return JobId(f"{array}_{index}")
    job = environ.get("SLURM_JOB_ID")
    return JobId(job) if job else None


def _is_step(text: str) -> bool:
    """Whether a step of the job started this process. From 26.05 on the script has an id too, -5; as a number without a
    sign it is 4294967291."""
    return text.isdigit() and int(text) < _FIRST_SPECIAL_STEP


def _number(environ: Mapping[str, str], name: str) -> float | None:
    """None for 0, which means all of the node's, and for what is not a number."""
    with suppress(ValueError):
        return float(environ.get(name, "")) or None
    return None


def _granted_mb(environ: Mapping[str, str]) -> float | None:
    """0 means all of the node's memory."""
    with suppress(ValueError):
        if node := environ.get("SLURM_MEM_PER_NODE"):
            return float(node) or None
        if cpu := environ.get("SLURM_MEM_PER_CPU"):
            return float(cpu) * int(environ.get("SLURM_CPUS_ON_NODE") or 1) or None
    return None


BACKEND = SlurmBackend()
