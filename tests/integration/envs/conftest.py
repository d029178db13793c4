"""A site with an environment cache, for each test its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from capabilities import missing
from env_site import EnvSite, PythonRunner, SmallDisk, Wheelhouse

from hpc_agent.file_records import remove_tree


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EnvSite]:
    site = EnvSite(tmp_path, Wheelhouse(tmp_path / "wheels"))
    site.wheels.add("alpha")
    site.wheels.add("beta", requires=("alpha",))
    try:
        yield site
    finally:
        # Unpacked environments are read-only, which pytest's own cleaning does not expect.
        for path in tmp_path.iterdir():
            remove_tree(path)


@pytest.fixture
def run_python(site: EnvSite) -> PythonRunner:
    return PythonRunner(site)


@pytest.fixture(scope="session")
def small_disk() -> SmallDisk:
    """The words before a command that give it a file system of so many MB at a folder; skips where not permitted."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).returncode:
        missing("namespaces", "no small file system can be mounted here")

    def words(folder: Path, megabytes: float) -> tuple[str, ...]:
        folder.mkdir(parents=True, exist_ok=True)
        mount = f'mount -t tmpfs -o size={int(megabytes * 1024)}k none "{folder}" && exec "$@"'
        return (unshare, "-rm", "sh", "-c", mount, "sh")

    return words
