"""Commands that start the ranks of a task, for each launcher. Pure but for the folder's name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc_agent import rank_launcher
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.launch_plan import Launcher, LaunchPlan
from hpc_agent.file_records import private_folder
from hpc_agent.runs import node_files
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.runs.node_files import LaunchRecord
from hpc_agent.schedulers.base import JobSteps

RANK_OF = "HPC_AGENT_RANK_OF"
"""Variable of all ranks, by which the processes of a run and node are found."""


def rank_mark(folder: Path, node: str) -> str:
    """Its value for the ranks on a node. ``folder``: as ``work_folder``."""
    return f"{folder.name}.{node}"


def work_folder(settings: AllSettings, directory: RunDirectory, start: int) -> Path:
    """Folder on each node that holds the task's code: its path is the same on all.

    Raises:
        ConfigError: this node has no folder for it.
    """
    return private_folder(settings.hpc.scratch) / "work" / f"{directory.attempt.job_name}.{start}"


def launcher_command(folder: str, directory: RunDirectory, start: int, steps: JobSteps, mode: str) -> list[str]:
    """``rank_launcher`` in one of its modes. ``folder``: the task's on the first node."""
    names = steps.variables
    location = node_files.location_file(directory, start, "")
    arguments = [folder, str(location), names.node, names.rank, names.local_rank, mode]
    return [sys.executable, "-I", "-S", rank_launcher.__file__, *arguments]


def starter(record: LaunchRecord, index: int, rank: Sequence[str]) -> list[str]:
    """The program that starts the ranks of node ``index``, or of all nodes; empty where the scheduler starts them.
    ``rank``: the command of each."""
    nodes, per_node, port = str(record.nodes), str(record.ranks_per_node), str(record.master_port)
    world = str(record.nodes * record.ranks_per_node)
    match Launcher(record.launcher):
        case Launcher.TORCHRUN:
            # With underscores: before 2.0 PyTorch knows no other names.
            options = ["--nnodes", nodes, "--nproc_per_node", per_node, "--node_rank", str(index)]
            rendezvous = ["--master_addr", record.master_addr, "--master_port", port]
            return ["python", "-m", "torch.distributed.run", *options, *rendezvous, "--no_python", *rank]
        case Launcher.ACCELERATE:
            options = ["--num_machines", nodes, "--num_processes", world, "--machine_rank", str(index)]
            if world != "1":
                options.append("--multi_gpu")  # its word for "by torchrun", on CPUs too; it refuses it for one process
            rendezvous = ["--main_process_ip", record.master_addr, "--main_process_port", port]
            static = ["--rdzv_backend", "static", "--mixed_precision", "no", "--dynamo_backend", "no"]
            return ["python", "-m", "accelerate.commands.launch", *options, *rendezvous, *static, "--no_python", *rank]
        case Launcher.MPIRUN:
            # The job has one task for each node; the ranks share what that has.
            return ["mpirun", "-n", world, "--map-by", f"ppr:{per_node}:node:OVERSUBSCRIBE", "--bind-to", "none", *rank]
        case _:
            return []


def launch(plan: LaunchPlan, command: Callable[[str], list[str]], steps: JobSteps) -> list[str]:
    """What the first agent runs to start all ranks, once each node is ready. ``command``: ``launcher_command`` for a
    mode."""
    match plan.launcher:
        case Launcher.STEP:
            return steps.ranks(command(rank_launcher.RANK), plan.nodes, plan.ranks_per_node)
        case Launcher.TORCHRUN | Launcher.ACCELERATE:
            return steps.ranks(command(rank_launcher.STARTER), plan.nodes, 1)
        case Launcher.MPIRUN:
            return command(rank_launcher.STARTER)
        case Launcher.NONE:
            return command(rank_launcher.SINGLE)
