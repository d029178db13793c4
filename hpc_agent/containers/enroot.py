"""enroot, NVIDIA's unprivileged containers from SquashFS files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpc_agent.containers.runtime_api import Argv, ContainerSpec, Mount


class Enroot(msgspec.Struct, frozen=True):
    """Starts an image file directly, which enroot does where squashfuse and fuse-overlayfs are installed.

    The devices of NVIDIA's driver come from enroot's own hook, by NVIDIA_VISIBLE_DEVICES; those of AMD are in /dev.
    """

    program: str
    name = "enroot"
    suffix = ".sqsh"
    isolated = False
    can_run = True
    in_step = False

    def wrap(self, spec: ContainerSpec) -> Argv:
        argv = [self.program, "start"]
        # All that the job may open; CUDA_VISIBLE_DEVICES, which comes along, says which of them.
        argv += ["--env", f"NVIDIA_VISIBLE_DEVICES={'all' if spec.gpus else 'void'}"]
        argv += [word for mount in spec.mounts for word in ("--mount", _mount(mount))]
        # Not the image's own command script (/etc/rc), which may end in a server or a shell.
        return [*argv, *spec.arguments, "--rc", _OWN_RC, spec.image, *spec.command]

    def remove(self, name: str) -> None:
        """Its processes are ours, in our group and in the job's cgroup."""
        return

    def fetch(self, reference: str, into: Path) -> Sequence[Argv]:
        return [[self.program, "import", f"--output={into}", docker_address(reference)]]


_OWN_RC = str(Path(__file__).with_name("enroot_rc.sh"))
"""Script in place of the image's: runs the command that it is given."""


def docker_address(reference: str) -> str:
    """enroot's address of an image: it writes ``docker://nvcr.io#nvidia/pytorch:24.05`` for
    ``nvcr.io/nvidia/pytorch:24.05``. Addresses with another scheme (``dockerd://``) are its own."""
    if "://" in reference and not reference.startswith("docker://"):
        return reference
    return f"docker://{with_registry(reference)}"


def with_registry(reference: str) -> str:
    """A path as it is; the registry in front of a ``#``, as enroot and pyxis write it."""
    reference = reference.removeprefix("docker://")
    registry, slash, rest = reference.partition("/")
    if reference.startswith(("/", "./")) or not slash or "#" in reference or not set(registry) & set(".:"):
        return reference
    return f"{registry}#{rest}"


def _mount(mount: Mount) -> str:
    """A line of fstab with colons for spaces; its folder is made in the image where there is none."""
    return f"{mount.source}:{mount.target}:none:x-create=auto,bind,{'rw' if mount.writable else 'ro'}"
