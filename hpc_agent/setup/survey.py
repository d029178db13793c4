"""What a site is like: its cluster, the user's folders, the container runtimes of this machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from hpc_agent.access import user_name
from hpc_agent.config.settings import HpcSettings
from hpc_agent.containers.runtimes import PROGRAMS
from hpc_agent.schedulers import backends
from hpc_agent.schedulers.cluster import ClusterFacts
from hpc_agent.setup.folders import Folder, find

_PREFERRED = ("pyxis", "apptainer", "singularity", "podman-hpc", "charliecloud", "enroot", "podman", "docker")
"""Those made for clusters first."""
_OF_A_SCHEDULER = ("pyxis",)
"""Runtimes that are a part of a scheduler, which knows whether it has them."""


class SiteFacts(msgspec.Struct, frozen=True):
    """All that was found out."""

    scheduler: str
    """Name of the backend, as ``hpc.scheduler`` takes it."""
    is_batch_system: bool
    cluster: ClusterFacts | None
    """None: jobs run on this machine, or the backend cannot be asked."""
    folders: tuple[Folder, ...]
    container_runtimes: tuple[str, ...]
    """By the names of ``hpc.container.runtime``. What compute nodes have may differ."""

    @property
    def without_cluster(self) -> str:
        """What there is to say where ``cluster`` is None."""
        if self.is_batch_system:
            return f"Jobs go to the scheduler {self.scheduler}; what its cluster has was not asked"
        return "No batch system was found: jobs run on this machine"


def survey(
    settings: HpcSettings,
    environ: Mapping[str, str],
    report: Callable[[str], None],
    *,
    partition: str = "",
    account: str = "",
) -> SiteFacts:
    """As ``ClusterClient.discover``.

    Raises:
        SchedulerUnavailableError: the scheduler does not answer.
    """
    backend = backends.choose(settings)
    client = backend.cluster_client(settings)
    cluster = client.discover(report, partition, account) if client is not None else None
    report("folders and container runtimes")
    found = {name for name in PROGRAMS if name not in _OF_A_SCHEDULER and _is_here(name)}
    found.update(cluster.container_runtimes if cluster else ())
    return SiteFacts(
        scheduler=backend.name,
        is_batch_system=backend.is_batch_system,
        cluster=cluster,
        folders=find(environ, Path.home(), user_name()),
        container_runtimes=tuple(sorted(found, key=_PREFERRED.index)),
    )


def _is_here(name: str) -> bool:
    """A program that can stand for another (podman for docker) is named as itself."""
    own, *_ = PROGRAMS[name]
    if name == "singularity" and shutil.which("apptainer"):
        return False  # a link that Apptainer brings
    return shutil.which(own) is not None
