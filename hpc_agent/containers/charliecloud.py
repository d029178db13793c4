"""Charliecloud: unprivileged containers from a folder or a SquashFS file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpc_agent.access import user_name
from hpc_agent.containers.runtime_api import Argv, ContainerSpec

_PATH = "--set-env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Unless the image says better: without any, a shell makes up its own, with the current folder in it."""


class Charliecloud(msgspec.Struct, frozen=True):
    program: str
    name = "charliecloud"
    suffix = ""
    isolated = False
    can_run = True
    in_step = False

    def wrap(self, spec: ContainerSpec) -> Argv:
        # Variables of the node mean nothing in there; those that the image sets are in its /ch/environment.
        # The machine's /tmp is shared under that name, not the job's TMPDIR under it. It wants to know its user.
        argv = ["env", "--unset=TMPDIR", f"USER={user_name()}", self.program, "--unset-env=*", _PATH]
        argv += ["--set-env"] if (Path(spec.image) / "ch" / "environment").is_file() else []
        # It has no read-only mounts: what must not be changed is read-only by its files' modes.
        argv += [f"--bind={mount.source}:{mount.target}" for mount in spec.mounts]
        return [*argv, *spec.arguments, spec.image, "--", *spec.command]

    def remove(self, name: str) -> None:
        """Its processes are ours, in our group and in the job's cgroup."""
        return

    def fetch(self, reference: str, into: Path) -> Sequence[Argv]:
        # Of the builders, which need not be on a compute node. Their cache of layers wants a git that knows its user,
        # and room for a second copy.
        plain = reference.removeprefix("docker://")
        pull = ["env", "CH_IMAGE_CACHE=disabled", "ch-image", "pull", plain]
        return [pull, ["ch-convert", "--in-fmt=ch-image", "--out-fmt=dir", plain, str(into)]]
