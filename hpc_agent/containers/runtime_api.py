"""Interface of container runtimes: argument lists, built here and run elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from hpc_agent.containers.gpu_share import NO_GPUS, GpuShare

Argv = list[str]


class Mount(msgspec.Struct, frozen=True):
    """``source`` of this machine is seen in the container as ``target``, an absolute path."""

    source: Path
    target: str
    writable: bool = False

    def __post_init__(self) -> None:
        if not self.target.startswith("/"):
            raise ValueError(f"{self.target!r} is not an absolute path")


class ContainerSpec(msgspec.Struct, frozen=True):
    """One container. Contains no secret: all of it goes on a command line."""

    image: str
    """``Image.location``."""
    name: str
    """Letters, digits, ``_``, ``.`` and ``-``; one container of that name runs on a machine at a time."""
    command: Sequence[str]
    mounts: Sequence[Mount] = ()
    gpus: GpuShare = NO_GPUS
    arguments: Sequence[str] = ()
    """Further arguments in the runtime's own syntax."""
    labels: Sequence[str] = ()
    keep: bool = False
    """Leave it there when it has ended; for runtimes whose containers can be stored."""


class Runtime(Protocol):
    """One for each program. No method runs anything."""

    @property
    def name(self) -> str:
        """Its word in ``hpc.container.runtime``."""

    @property
    def program(self) -> str: ...

    @property
    def suffix(self) -> str:
        """Ending of its images in the shared folder; empty where these are folders."""

    @property
    def isolated(self) -> bool:
        """As docker does it: the container's first process is alone with its children, sees the GPUs that it is lent
        numbered from 0, and understands docker's arguments."""

    @property
    def can_run(self) -> bool:
        """Whether this process can run containers; it can fetch images in any case."""

    @property
    def in_step(self) -> bool:
        """Whether its command asks the scheduler for a step of the job on this node, so that the container's processes
        do not descend from it."""

    def wrap(self, spec: ContainerSpec) -> Argv:
        """The command that runs ``spec`` in the foreground, its output on stdout and its exit code as its own."""

    def remove(self, name: str) -> Argv | None:
        """Ends the container whatever it does, and is content if there is none. None where it ends with the
        process group of the process that started it."""

    def fetch(self, reference: str, into: Path) -> Sequence[Argv]:
        """Bring an image from its registry into the shared folder's new file ``into``. Uses the network."""


class ScriptedRuntime(Runtime, Protocol):
    """Runtime whose command a job's script may hold, as in ``singularity exec --uts``."""

    def command_arguments(self, spec: ContainerSpec) -> Argv:
        """What comes after that command: the container's arguments, its image and its process."""


class ImageStore(Protocol):
    """Runtime that keeps images of its own on each machine: what it has in addition to ``Runtime``."""

    @property
    def is_shared(self) -> bool:
        """Whether all nodes see what one has pulled."""

    def inspect(self, reference: str) -> Argv:
        """Prints the image's id on stdout; fails, or prints nothing, if the machine does not have it."""

    def pull(self, reference: str) -> Argv: ...

    def load(self, file: Path) -> Argv:
        """Take an image from a file of the shared folder."""
