"""What a task asks of its Python environment: a value that is the same on the login node and on the compute node."""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from hpc_agent.config.settings import PackageSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import TaskScript
from hpc_agent.envs import project as projects
from hpc_agent.envs import requirements
from hpc_agent.envs.project import Project
from hpc_agent.envs.requirements import RequirementLines
from hpc_agent.errors import EnvironmentBuildError

FORMAT = 1
"""Part of every digest and key: raise it when what is built from the same words changes."""

_NO_LINES = RequirementLines()
_NO_FILES = RequirementFiles()
_PYTHON = re.compile(r"^python(?P<version>\d+\.\d+)(?:\.\d+)?$")


@dataclass(frozen=True)
class EnvRequest:
    """``python``: ``3.11``, or empty for whatever is there. ``source``: identity of the code that local requirement
    lines (``./lib``) and ``project`` are built from, empty where there are none. ``image``: identity of the container
    image whose Python is meant, empty for this site's own. ``project``: what is asked for besides ``lines``;
    ``imports_from``: the folder of the repository from which the task imports anyway. ``notes``: sentences on what the
    repository says about packages and is not used."""

    lines: RequirementLines = _NO_LINES
    python: str = ""
    source: str = ""
    image: str = ""
    project: Project | None = None
    imports_from: str = ""
    notes: tuple[str, ...] = ()

    @property
    def needs_source(self) -> bool:
        """Whether building it needs a checkout of the task's repository."""
        return bool(self.lines.local or self.project)

    def digest(self, packages: PackageSettings) -> str:
        """32 hexadecimal digits that stand for this request under these settings."""
        parts = [
            FORMAT,
            [*map(requirements.shown, (self.lines.requirements, self.lines.constraints, self.lines.options))],
            self.python,
            self.source,
            packages.type,
            packages.post_packages,
            packages.python_binary,
            packages.system_site_packages,
            requirements.shown(packages.extra_index_url),
            requirements.shown(packages.extra_pip_install_flags),
            *([self.image] if self.image else []),
            *([self.project.path, self.project.tool, self.imports_from] if self.project else []),
        ]
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def request_for(
    script: TaskScript,
    files: RequirementFiles,
    packages: PackageSettings,
    *,
    source: str = "",
    also: Sequence[str] = (),
) -> EnvRequest:
    """The environment that ``script`` asks for, and ``also`` lines besides.

    ``files`` are those of its repository; ``source`` identifies the repository's content (commit and changes).

    Raises:
        EnvironmentBuildError: a requirement line includes a file that is not there.
    """
    also = [*also, *_implied(script)]
    python = _requested_python(script, packages)
    listed = _listed(script, files, packages)
    if listed is not None:
        lines = requirements.collect([*also, *listed], files, files.working_dir)
        return EnvRequest(lines, python, source if lines.local else "")
    by_poetry = packages.type == "poetry" and bool(files.projects)
    project, notes = projects.find(files) if by_poetry or not files.listed else (None, ())
    lists = () if by_poetry and files.listed and project else files.roots
    lines = requirements.collect([*also, *(f"-r {path}" for path in lists)], files, "")
    return EnvRequest(
        lines,
        python,
        source if lines.local or project else "",
        project=project,
        imports_from=_imports_from(script, files) if project else "",
        notes=(*notes, *_unread(script, files, project, lines)),
    )


def request_for_file(text: str, files: RequirementFiles = _NO_FILES, *, python: str = "") -> EnvRequest:
    """The environment that the text of a requirements.txt asks for."""
    return EnvRequest(requirements.collect([text], files, ""), python)


def _listed(script: TaskScript, files: RequirementFiles, packages: PackageSettings) -> Sequence[str] | None:
    """The task's own list, if one counts (docs/internals/clearml-protocol.md#requirements).

    One that is there but empty asks for nothing, and means it.

    Where a site says poetry, a repository's project counts before any list, as with the reference.
    """
    wanted = script.requirements
    chosen = wanted.pip
    if packages.force_repo_requirements_txt and files.roots:
        chosen = None
    elif packages.force_original_requirements and wanted.org_pip is not None:
        chosen = wanted.org_pip
    if packages.type == "poetry" and files.projects:
        return None
    return chosen


def _unread(
    script: TaskScript, files: RequirementFiles, project: Project | None, lines: RequirementLines
) -> tuple[str, ...]:
    """What says something about packages and is not read, each in a sentence."""
    used = "requirements.txt" if files.listed else project.path if project else ""
    notes = [
        f"{path} of the repository is not read: "
        + (f"the packages are those of {used}" if used else "give the task a list of packages, or a requirements.txt")
        for path in files.unread
        # Many repositories have lists for development beside the one that counts.
        if not used or not any(part.startswith("requirements") for part in path.split("/"))
    ]
    if files.listed and project is None and not lines.local:
        with contextlib.suppress(EnvironmentBuildError):
            if (other := projects.find(files)[0]) is not None:
                notes.append(f"{other.path} of the repository is not read: the packages are those of {used}")
    if script.requirements.conda:
        notes.append(
            "the task's list of conda packages is not used: uv installs packages by the names they have for pip"
        )
    return tuple(notes)


def _imports_from(script: TaskScript, files: RequirementFiles) -> str:
    """The folder that Python puts on its path for the task, relative to the root."""
    if script.entry_point.strip().startswith("-"):
        return files.working_dir
    return posixpath.normpath(
        posixpath.join(files.working_dir, posixpath.dirname((script.entry_point.split() or [""])[0]))
    )


def _implied(script: TaskScript) -> Sequence[str]:
    """A notebook is run by IPython, and some ask for what Jupyter has beside it."""
    if re.search(r"\.ipynb(\s|$)", script.entry_point):
        return ("nbconvert", "ipython")
    return ()


def _requested_python(script: TaskScript, packages: PackageSettings) -> str:
    """``python3.11`` and ``/usr/bin/python3.11`` ask for 3.11; ``python3`` asks for nothing.

    See docs/internals/clearml-protocol.md#interpreter.
    """
    if packages.ignore_requested_python_version:
        return ""
    match = _PYTHON.match(posixpath.basename(script.binary.strip()))
    return match["version"] if match else ""
