"""Scheduling of tests among workers: a file stays together, and what needs podman runs one after the other, as what
looks at the source does."""

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


OF_THE_SOURCE = frozenset(
    f"tests/unit/test_{name}.py"
    for name in (
        *("backend_boundary", "language", "layers", "logs"),
        *("quoted_sentences", "struct_types", "text_encoding", "wire_names"),
    )
)
"""Files that look at the syntax trees of the whole package: 2.5 s of processor time in each process that parses it."""
TOGETHER = {**dict.fromkeys(ONE_PODMAN, "containers"), **dict.fromkeys(OF_THE_SOURCE, "source")}


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist publishes no type hints
    """A file's tests share servers and clusters. Files go to workers in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return TOGETHER.get(file, file)

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
