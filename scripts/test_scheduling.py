"""Scheduling of tests among workers: a file stays together, and what needs podman runs one after the other."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

ONE_PODMAN = frozenset(
    {
        "tests/integration/test_containers_apptainer.py",
        "tests/integration/test_containers_podman.py",
        "tests/integration/test_containers_podman_hpc.py",
        "tests/integration/test_containers_charliecloud.py",
        "tests/e2e/test_build_images.py",
        "tests/e2e/test_apptainer_slurm.py",
        "tests/e2e/test_containers_slurm.py",
        "tests/e2e/test_daemon_docker.py",
    }
)
"""Files that share one store of images and its containers: each looks that none is left."""


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist publishes no type hints
    """A file's tests share servers and clusters. Files go to workers in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "containers" if file in ONE_PODMAN else file

    def remove_node(self, node: WorkerController) -> str | None:
        """As xdist does when a worker has died, but what it died of is not run again: it would kill the next."""
        units: dict[str, dict[str, bool]] = {
            scope: unit for scope, unit in self.assigned_work[node].items() if not all(unit.values())
        }
        self.assigned_work[node] = units
        for unit in units.values():
            for nodeid, is_done in unit.items():
                if not is_done:
                    unit[nodeid] = True
                    super().remove_node(node)
                    return nodeid
        crashed: str | None = super().remove_node(node)
        return crashed
