"""Nodes of its job that a task runs on, as the first agent decides before it prepares anything."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.gpu_ids import visible_gpus
from hpc_agent.domain.launch_plan import LaunchDefaults, Launcher, LaunchPlan, launch_plan
from hpc_agent.domain.task import Task
from hpc_agent.errors import InputError
from hpc_agent.logs import EventLog
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.base import JobVariables

log = EventLog("nodes")

SINGLE_TASK = "CLEARML_MULTI_NODE_SINGLE_TASK"
"""Variable of ClearML's for one task on many nodes; see docs/internals/clearml-protocol.md#many-nodes."""
_MASTER = "CLEARML_MULTI_NODE_MASTER_DEF"


def plan_of(task: Task, settings: AllSettings, queue: str, gpus: str | None) -> LaunchPlan | None:
    """How the current job runs the task on its nodes; None where the task is one process. ``gpus``: the flag.

    Raises:
        ResourceError: the task's properties are wrong.
    """
    job = backends.job_variables()
    nodes = job.nodes if job else 1
    visible = [] if gpus == "none" else visible_gpus(os.environ) or []
    defaults = settings.hpc.launch_defaults(queue)
    if job is not None and is_one_of_many(job, os.environ):
        # A step of the site's own template started as many processes as there are to be ranks.
        per_node = defaults.ranks_per_node or max(job.step_processes // nodes, 1)
        return launch_plan(task.properties, LaunchDefaults(Launcher.STEP, per_node), nodes=nodes, gpus=0)
    plan = launch_plan(task.properties, defaults, nodes=nodes, gpus=len(visible))
    if job is None or job.in_step or not job.node_name or backends.job_steps(settings.hpc) is None:
        return None  # a shell of salloc may be on the login node
    return plan


def is_one_of_many(job: JobVariables, environ: Mapping[str, str]) -> bool:
    """Whether a step runs this command many times for one task, which is to run on all of the job's nodes
    (docs/internals/clearml-protocol.md#many-nodes)."""
    return job.step_processes > 1 and environ.get(SINGLE_TASK, "").strip() not in ("", "0")


def set_master_defaults(settings: AllSettings, environ: MutableMapping[str, str]) -> None:
    """Set the address and port that the SDK's ``Task.launch_multi_node`` gives to the other tasks' nodes, unless they
    are set: without that it takes the machine's first address, and the same port for all tasks of a node."""
    job = backends.job_variables(environ)
    if job is None:
        return
    from hpc_agent.executor.rendezvous import free_port, master_address  # imports psutil

    many = settings.hpc.many_nodes
    try:
        # Its name is not asked for: a name server that does not answer must not hold up every task.
        address = master_address("", many.interface)
        port = free_port(many.port_range, job_number(job.job))
    except InputError as error:
        log.warning("master.not_known", error=error)
        return
    environ.setdefault(f"{_MASTER}_ADDR", address)
    environ.setdefault(f"{_MASTER}_PORT", str(port))


def job_number(job: str) -> int:
    """Of a job's id; elements of an array differ by their index."""
    return sum(int(part) for part in job.replace(".", "_").split("_") if part.isdigit())
