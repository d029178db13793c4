"""docker, and podman, which understands its command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpc_agent.containers.gpu_share import GpuMaker, GpuShare
from hpc_agent.containers.runtime_api import Argv, ContainerSpec, Mount

_AMD = ("--device=/dev/kfd", "--device=/dev/dri", "--group-add=video")
"""AMD's driver has no registered devices: all of them, and ROCR_VISIBLE_DEVICES inside says which are meant."""


class Docker(msgspec.Struct, frozen=True):
    """``skip_gpus_flag``: say nothing about GPUs."""

    name: str
    program: str
    skip_gpus_flag: bool = False
    suffix = ".tar"
    isolated = True
    can_run = True
    in_step = False
    is_shared = False

    def wrap(self, spec: ContainerSpec) -> Argv:
        # Never pull here: what is missing has been fetched before, under a message of its own.
        # podman's `rm --force` would else wait for as long; our own grace is over by then.
        argv = [self.program, "run", *([] if spec.keep else ["--rm"])]
        argv += ["--pull=never", "--stop-timeout=0", f"--name={spec.name}"]
        argv += [] if self.skip_gpus_flag else self.gpu_words(spec.gpus)
        argv += spec.arguments
        argv += [word for label in spec.labels for word in ("--label", label)]
        argv += [word for mount in spec.mounts for word in ("--mount", _mount(mount))]
        # The image's own start-up would come before ours, and may end in a server or a shell.
        program, *arguments = spec.command
        return [*argv, f"--entrypoint={program}", spec.image, *arguments]

    def gpu_words(self, gpus: GpuShare) -> Argv:
        if not gpus:
            return []
        if gpus.maker is GpuMaker.AMD:
            return list(_AMD)
        if self.name == "podman":
            # podman knows GPUs by the Container Device Interface; its --gpus came with 5.0.
            devices = ("all",) if gpus.all else gpus.devices
            return [f"--device=nvidia.com/gpu={device}" for device in devices]
        return ["--gpus=all" if gpus.all else f'--gpus="device={",".join(gpus.devices)}"']

    def remove(self, name: str) -> Argv:
        return [self.program, "rm", "--force", "--volumes", name]

    def inspect(self, reference: str) -> Argv:
        return [self.program, "image", "inspect", "--format={{.Id}}", _plain(reference)]

    def inspect_config(self, reference: str) -> Argv:
        """Prints how an image starts, as JSON."""
        return [self.program, "image", "inspect", "--format={{json .Config}}", _plain(reference)]

    def commit(self, container: str, image: str, changes: Sequence[str]) -> Argv:
        """Store an ended container as an image. ``changes`` are lines of a Dockerfile."""
        words = [word for change in changes for word in ("--change", change)]
        return [self.program, "commit", *words, container, image]

    def pull(self, reference: str) -> Argv:
        return [self.program, "pull", _plain(reference)]

    def load(self, file: Path) -> Argv:
        return [self.program, "load", "--quiet", f"--input={file}"]

    def fetch(self, reference: str, into: Path) -> Sequence[Argv]:
        return [self.pull(reference), [self.program, "save", f"--output={into}", _plain(reference)]]


def _mount(mount: Mount) -> str:
    words = ["type=bind", f"source={mount.source}", f"target={mount.target}", *([] if mount.writable else ["readonly"])]
    return ",".join(_field(word) for word in words)


def _field(word: str) -> str:
    """docker reads the words of a mount as a line of comma-separated values."""
    return '"' + word.replace('"', '""') + '"' if set(word) & set(',"') else word


def _plain(reference: str) -> str:
    """Apptainer's users write docker://image."""
    return reference.removeprefix("docker://")
