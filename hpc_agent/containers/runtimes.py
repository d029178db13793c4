"""The setting ``hpc.container.runtime`` → the runtime. A new one is an import and an entry in both tables here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping

from hpc_agent.config.container_settings import ContainerSettings
from hpc_agent.containers.apptainer import Apptainer
from hpc_agent.containers.charliecloud import Charliecloud
from hpc_agent.containers.docker import Docker
from hpc_agent.containers.enroot import Enroot
from hpc_agent.containers.podman_hpc import PodmanHpc
from hpc_agent.containers.pyxis import Pyxis
from hpc_agent.containers.runtime_api import Runtime
from hpc_agent.errors import ContainerUnavailableError, ProcessError
from hpc_agent.process import programs

_ANSWER_S = 20.0

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "docker": ("docker", "podman"),
    "podman": ("podman",),
    "podman-hpc": ("podman-hpc",),
    "apptainer": ("apptainer", "singularity"),
    "singularity": ("singularity", "apptainer"),
    "charliecloud": ("ch-run",),
    "enroot": ("enroot",),
    "pyxis": ("srun",),
}
"""Runtime → its programs, the first that is there and works is taken."""

_MAKERS: Mapping[str, Callable[[str, ContainerSettings], Runtime]] = {
    "docker": lambda program, settings: Docker(_dialect(program), program, settings.skip_gpus_flag),
    "podman": lambda program, settings: Docker("podman", program, settings.skip_gpus_flag),
    "podman-hpc": lambda program, settings: PodmanHpc(program=program, skip_gpus_flag=settings.skip_gpus_flag),
    "apptainer": lambda program, _: Apptainer(program),
    "singularity": lambda program, _: Apptainer(program, "singularity"),
    "charliecloud": lambda program, _: Charliecloud(program),
    "enroot": lambda program, _: Enroot(program),
    "pyxis": lambda program, _: Pyxis(program, os.environ.get("SLURMD_NODENAME", "")),
}


def runtime(settings: ContainerSettings) -> Runtime | None:
    """The runtime of this machine; None where tasks run without containers.

    Raises:
        ContainerUnavailableError: its program is not here.
    """
    if settings.runtime == "none":
        return None
    names = (settings.program,) if settings.program else PROGRAMS[settings.runtime]
    found = [path for name in names if (path := shutil.which(name))]
    if not found:
        raise ContainerUnavailableError(
            f"hpc.container.runtime is {settings.runtime}, but {' and '.join(names)} {_is(names)} not on this machine: "
            "install it, name it in hpc.container.program, or load its module"
        )
    usable = next((path for path in found if len(found) == 1 or _works(path)), found[-1])
    return _MAKERS[settings.runtime](usable, settings)


def _is(names: tuple[str, ...]) -> str:
    return "is" if len(names) == 1 else "are"


def _dialect(program: str) -> str:
    return "podman" if program.rpartition("/")[2] == "podman" else "docker"


def _works(program: str) -> bool:
    """docker's client is on many machines where its daemon is not running, or not for us."""
    try:
        return programs.run([program, "version"], timeout=_ANSWER_S).ok
    except ProcessError:
        return False
