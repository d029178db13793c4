"""The code of the task's own project as a package: whether the task needs it installed, and what it holds.

``uv sync`` and ``poetry install`` install the project itself. What the task imports from its own folder anyway need not
be installed, for then each commit would have an environment of its own.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.envs.env_request import EnvRequest
from hpc_agent.envs.project import Project
from hpc_agent.errors import EnvironmentBuildError

_DESCRIBED = ("pyproject.toml", "setup.py", "setup.cfg")


@dataclass(frozen=True)
class OwnPackage:
    """``digest`` of its content, empty where it need not be installed; ``note``: why it could not be looked at."""

    digest: str = ""
    note: str = ""


def look(project: Project, imports_from: str, root: Path, build: Callable[[], Path]) -> OwnPackage:
    """``build`` makes the project's wheel and raises EnvironmentBuildError where it cannot be built; ``imports_from``:
    the folder below ``root`` that is on the task's path."""
    if not project.installs_itself:
        return OwnPackage()
    # Building leaves files in the checkout.
    present = frozenset(_files(root / imports_from))
    try:
        return _of_wheel(build(), present)
    except (EnvironmentBuildError, zipfile.BadZipFile) as error:
        return OwnPackage(note=f"the package of {project.path} itself is not installed: {error}")


def _of_wheel(wheel: Path, present: frozenset[str]) -> OwnPackage:
    digest = hashlib.sha256()
    needed = False
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            own = name.partition("/")[0].endswith(".dist-info")
            needed = needed or not (own or name in present)
            if not name.endswith("/RECORD"):
                digest.update(f"{name} {hashlib.sha256(archive.read(name)).hexdigest()}\n".encode())
    return OwnPackage(f"package-{digest.hexdigest()[:32]}" if needed else "")


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and ".git" not in path.parts[len(folder.parts) :]:
            yield path.relative_to(folder).as_posix()


def described(root: Path, request: EnvRequest) -> Iterator[str]:
    """The texts of the project and of the folders that are built from the repository at ``root``."""
    folders = [*request.lines.local, *([request.project.folder] if request.project else [])]
    for folder in folders:
        for name in _DESCRIBED:
            file = root / folder.partition("[")[0] / name
            if file.is_file():
                yield file.read_text(encoding="utf-8", errors="replace")
