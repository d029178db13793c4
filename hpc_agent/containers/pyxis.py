"""pyxis, the plugin with which srun starts a job step in an enroot container."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpc_agent.containers.enroot import docker_address, with_registry
from hpc_agent.containers.runtime_api import Argv, ContainerSpec, Mount


class Pyxis(msgspec.Struct, frozen=True):
    """Works in a Slurm job only: the container is a step of it, on ``node``, where the agent is; empty outside
    of a job."""

    program: str
    node: str = ""
    name = "pyxis"
    suffix = ".sqsh"
    isolated = False
    in_step = True

    @property
    def can_run(self) -> bool:
        """Outside of a job srun would ask for one, and wait."""
        return bool(self.node)

    def wrap(self, spec: ContainerSpec) -> Argv:
        return [self.program, *self.command_arguments(spec)]

    def command_arguments(self, spec: ContainerSpec) -> Argv:
        # One process with all that the job has on this node, GPUs included; the batch script holds no part of it.
        argv = ["--nodes=1", "--ntasks=1", "--overlap", "--unbuffered", f"--job-name={spec.name}"]
        # Of a job with many nodes, Slurm would choose the first for each of them.
        argv += [f"--nodelist={self.node}"] if self.node else []
        argv.append(f"--container-image={with_registry(spec.image)}")
        argv += ["--no-container-mount-home", "--no-container-entrypoint"]
        if spec.mounts:
            argv.append(f"--container-mounts={','.join(map(_mount, spec.mounts))}")
        return [*argv, *spec.arguments, *spec.command]

    def remove(self, name: str) -> None:
        """Slurm ends the steps of a job with it."""
        return

    def fetch(self, reference: str, into: Path) -> Sequence[Argv]:
        return [["enroot", "import", f"--output={into}", docker_address(reference)]]


def _mount(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{'rw' if mount.writable else 'ro'}"
