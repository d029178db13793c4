"""Apptainer, and Singularity, which has the same command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpc_agent.containers.gpu_share import GpuMaker
from hpc_agent.containers.runtime_api import Argv, ContainerSpec, Mount

_GPU_FLAGS = {GpuMaker.NVIDIA: "--nv", GpuMaker.AMD: "--rocm"}


class Apptainer(msgspec.Struct, frozen=True):
    program: str
    name: str = "apptainer"
    suffix = ".sif"
    isolated = False
    can_run = True
    in_step = False

    def wrap(self, spec: ContainerSpec) -> Argv:
        # Nothing of the node's variables: its PYTHONPATH and library paths mean other files in there.
        return [self.program, "exec", "--cleanenv", *self.command_arguments(spec)]

    def command_arguments(self, spec: ContainerSpec) -> Argv:
        # The driver's libraries come from the node; the job's own limits say which devices it may open.
        argv = [_GPU_FLAGS[spec.gpus.maker]] if spec.gpus else []
        argv += [word for mount in spec.mounts for word in ("--bind", _bind(mount))]
        return [*argv, *spec.arguments, spec.image, *spec.command]

    def remove(self, name: str) -> None:
        """Its processes are ours, in our group and in the job's cgroup."""
        return

    def fetch(self, reference: str, into: Path) -> Sequence[Argv]:
        # Its cache is in the home folder, whose quota two copies of an image may fill; ours is the shared file itself.
        return [[self.program, "pull", "--disable-cache", "--force", str(into), with_scheme(reference)]]


def with_scheme(reference: str) -> str:
    """``ubuntu:22.04`` means a registry of Docker images, as everywhere else."""
    return reference if "://" in reference else f"docker://{reference}"


def _bind(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{'rw' if mount.writable else 'ro'}"
