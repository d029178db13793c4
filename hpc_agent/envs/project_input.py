"""Input for ``uv pip compile`` from a project's file and lock, and whether the project's own package is installed.

``uv sync`` and ``poetry install`` install the project itself. Here it is installed only if the task could not import it
from its own folder; otherwise each commit would need an environment of its own.
"""

from __future__ import annotations

import hashlib
import posixpath
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from hpc_agent.domain.requirement_lines import LineError, decoded, logical_lines, requirement_and_hashes
from hpc_agent.envs import poetry_project
from hpc_agent.envs.env_request import EnvRequest
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.project import Project
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.process.programs import CompletedProcess
from hpc_agent.redact import without_credentials

RunUv = Callable[[Sequence[str]], CompletedProcess]
_LOCK = "uv.lock"


class LockedVersions(msgspec.Struct, frozen=True):
    """Versions of a lock. ``constraints``: requirement lines; ``hashes``: by ``name==version``."""

    constraints: tuple[str, ...] = ()
    hashes: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


_NO_LOCK = LockedVersions()


class ProjectInput(msgspec.Struct, frozen=True):
    """Input of ``uv pip compile``: its ``arguments``, and the ``folder`` whose uv settings are used."""

    arguments: tuple[str, ...]
    folder: Path
    locked: LockedVersions = _NO_LOCK
    notes: tuple[str, ...] = ()


def read_project(project: Project, root: Path, work: Path, base: Interpreter, run_uv: RunUv) -> ProjectInput:
    """Prepare a project for uv. ``root``: a checkout, which may be changed; ``work``: a folder for new files.

    Raises:
        EnvironmentBuildError: the project or its lock cannot be read.
    """
    file = root / project.path
    _as_utf8(file)
    if project.tool == "poetry":
        made = poetry_project.as_uv_project(file.parent, work / "poetry", base)
        return ProjectInput(
            (str(made.file),), made.file.parent, LockedVersions(made.constraints, made.hashes), made.notes
        )
    arguments = [str(file)] if project.has_table else []
    for group in project.groups:
        arguments += ["--group", f"{file}:{group}"]
    return ProjectInput(tuple(arguments), file.parent, _uv_lock(project, root, base, run_uv))


def _as_utf8(file: Path) -> None:
    """Take a byte order mark off: pip's and uv's readers of TOML do not know it."""
    data = file.read_bytes()
    text = decoded(data)
    if data != text.encode():
        file.write_bytes(text.encode())


def _uv_lock(project: Project, root: Path, base: Interpreter, run_uv: RunUv) -> LockedVersions:
    """The versions of the project's ``uv.lock``, in its folder or at the root of its workspace."""
    folders = [root / project.folder, *(root / project.folder).parents]
    inside = [folder for folder in folders if folder == root or root in folder.parents]
    if project.tool != "uv" or not project.has_table or not any((folder / _LOCK).is_file() for folder in inside):
        return _NO_LOCK
    answer = run_uv(
        [
            *("export", "--frozen", "--project", str(root / project.folder), "--python", base.executable),
            *("--no-emit-project", "--no-header", "--no-annotate", "--quiet"),
        ]
    )
    if not answer.ok:
        lock_path = posixpath.join(project.folder, _LOCK)
        raise EnvironmentBuildError(
            f"{lock_path} of the task's repository cannot be read: {without_credentials(answer.last_words).strip()}"
        )
    return from_export(answer.stdout)


def from_export(text: str) -> LockedVersions:
    """The packages of an index among requirement lines that ``uv export`` printed.

    Raises:
        EnvironmentBuildError: a line is not one of a requirements file.
    """
    constraints: list[str] = []
    hashes: dict[str, tuple[str, ...]] = {}
    try:
        for line in logical_lines(text):
            if line.startswith("-"):
                continue
            bare, found = requirement_and_hashes(line)
            if "==" not in bare.partition(";")[0] or " @ " in bare:
                continue  # a folder or a repository: its address is in the project's file
            constraints.append(bare)
            if found:
                hashes[bare.partition(";")[0].strip().lower()] = found
    except LineError as error:
        raise EnvironmentBuildError(f"what uv export printed cannot be read: {error}") from error
    return LockedVersions(tuple(constraints), hashes)


_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


class OwnPackage(msgspec.Struct, frozen=True):
    """The project's own package. ``digest``: of its content, empty if it need not be installed; ``note``: why it could
    not be inspected."""

    digest: str = ""
    note: str = ""


def own_package_of(project: Project, imports_from: str, root: Path, build: Callable[[], Path]) -> OwnPackage:
    """Inspect a project's own package. ``build`` makes its wheel or raises EnvironmentBuildError; ``imports_from``:
    the folder below ``root`` that is on the task's path."""
    if not project.installs_itself:
        return OwnPackage()
    # Building leaves files in the checkout.
    present = frozenset(_files(root / imports_from))
    try:
        return _from_wheel(build(), present)
    except (EnvironmentBuildError, zipfile.BadZipFile) as error:
        return OwnPackage(note=f"the package of {project.path} itself is not installed: {error}")


def _from_wheel(wheel: Path, present: frozenset[str]) -> OwnPackage:
    digest = hashlib.sha256()
    is_needed = False
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            own = name.partition("/")[0].endswith(".dist-info")
            is_needed = is_needed or not (own or name in present)
            if not name.endswith("/RECORD"):
                digest.update(f"{name} {hashlib.sha256(archive.read(name)).hexdigest()}\n".encode())
    return OwnPackage(f"package-{digest.hexdigest()[:32]}" if is_needed else "")


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and ".git" not in path.parts[len(folder.parts) :]:
            yield path.relative_to(folder).as_posix()


def project_texts(root: Path, request: EnvRequest) -> Iterator[str]:
    """The texts of the project and of the folders that are built from the repository at ``root``."""
    folders = [*request.lines.local, *([request.project.folder] if request.project else [])]
    for folder in folders:
        for name in _PROJECT_FILES:
            file = root / folder.partition("[")[0] / name
            if file.is_file():
                yield file.read_text(encoding="utf-8", errors="replace")
