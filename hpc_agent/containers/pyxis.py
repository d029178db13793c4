"""pyxis, the plugin with which srun starts a job step in an enroot container."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.containers.runtime_api import Argv, ContainerSpec, Mount


@dataclass(frozen=True)
class Pyxis:
    """Works in a Slurm job only: the container is a step of it."""

    program: str
    name = "pyxis"
    suffix = ".sqsh"
    isolated = False

    def wrap(self, spec: ContainerSpec) -> Argv:
        # One process with all that the job has on this node, GPUs included; the batch script holds no part of it.
        argv = [self.program, "--nodes=1", "--ntasks=1", "--overlap", "--unbuffered", f"--job-name={spec.name}"]
        argv += [f"--container-image={_image(spec.image)}", "--no-container-mount-home", "--no-container-entrypoint"]
        if spec.mounts:
            argv.append(f"--container-mounts={','.join(map(_mount, spec.mounts))}")
        return [*argv, *spec.arguments, *spec.command]

    def remove(self, name: str) -> None:
        """srun takes signals to its step, and Slurm ends the steps of a job with it."""
        return

    def fetch(self, reference: str, into: Path) -> Sequence[Argv]:
        plain = reference.removeprefix("docker://")
        return [["enroot", "import", f"--output={into}", f"docker://{_image(plain)}"]]


def _mount(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{'rw' if mount.writable else 'ro'}"


def _image(reference: str) -> str:
    """A path as it is; enroot writes nvcr.io#nvidia/pytorch:24.05 for nvcr.io/nvidia/pytorch:24.05."""
    reference = reference.removeprefix("docker://")
    registry, slash, rest = reference.partition("/")
    if reference.startswith(("/", "./")) or not slash or "#" in reference or not set(registry) & set(".:"):
        return reference
    return f"{registry}#{rest}"
