"""Request for a task's Python environment: a value that is the same on the login node and on the compute node."""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
import re
from collections.abc import Sequence

import msgspec

from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import TaskScript
from hpc_agent.envs import project as projects
from hpc_agent.envs import requirements
from hpc_agent.envs.conda_request import CondaRequest, conda_list
from hpc_agent.envs.env_key import FORMAT
from hpc_agent.envs.project import Project
from hpc_agent.envs.requirements import RequirementLines
from hpc_agent.errors import EnvironmentBuildError

_NO_LINES = RequirementLines()
_NO_FILES = RequirementFiles()
_PYTHON = re.compile(r"^python(?P<version>\d+\.\d+)(?:\.\d+)?$")


class EnvRequest(msgspec.Struct, frozen=True):
    """Requested environment of a task, independent of the machine.

    ``python``: ``3.11``, or empty for any version. ``source``: identity of the code that local requirement lines
    (``./lib``) and ``project`` are built from, empty if there are none. ``image``: identity of the container image
    whose Python is meant, empty for this site's own. ``project``: requested in addition to ``lines``. ``imports_from``:
    the folder of the repository that is on the task's path. ``notes``: what the repository requests and is ignored, in
    sentences. ``conda``: packages of conda's channels; ``lines`` are then installed over them.
    """

    lines: RequirementLines = _NO_LINES
    python: str = ""
    source: str = ""
    image: str = ""
    project: Project | None = None
    imports_from: str = ""
    notes: tuple[str, ...] = ()
    conda: CondaRequest | None = None

    @property
    def needs_source(self) -> bool:
        """Whether building it needs a checkout of the task's repository."""
        return bool(self.lines.local or self.project)

    def digest(self, packages: PackageSettings) -> str:
        """32 hexadecimal digits that identify this request under these settings."""
        parts = [
            FORMAT,
            [*map(requirements.redacted, (self.lines.requirements, self.lines.constraints, self.lines.options))],
            self.python,
            self.source,
            packages.type,
            packages.post_packages,
            packages.python_binary,
            packages.system_site_packages,
            requirements.redacted(packages.extra_index_url),
            requirements.redacted(packages.extra_pip_install_flags),
            *([self.image] if self.image else []),
            *([self.project.path, self.project.tool, self.imports_from] if self.project else []),
            *([self.conda.packages, self.conda.channels or packages.conda_channels] if self.conda else []),
            *([self.conda.variables] if self.conda and self.conda.variables else []),
        ]
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def request_for(
    script: TaskScript,
    files: RequirementFiles,
    packages: PackageSettings,
    *,
    source: str = "",
    extra: Sequence[str] = (),
) -> EnvRequest:
    """The environment that ``script`` requests, plus ``extra`` requirement lines.

    ``files`` are those of its repository; ``source`` identifies the repository's content (commit and changes).

    Raises:
        EnvironmentBuildError: a requirement line includes a file that is not there.
    """
    extra = [*extra, *_notebook_packages(script)]
    python = _requested_python(script, packages)
    if packages.type == "conda":
        prefer_files = packages.force_repo_requirements_txt
        found = conda_list(script.requirements, files, prefer_files=prefer_files)
        if found is not None:
            lines = requirements.collect([*extra, *found.pip], files, found.folder)
            return EnvRequest(lines, python, source if lines.local else "", conda=found.request)
    listed = _explicit_list(script, files, packages)
    if listed is not None:
        lines = requirements.collect([*extra, *listed], files, files.working_dir)
        return EnvRequest(lines, python, source if lines.local else "")
    by_poetry = packages.type == "poetry" and bool(files.projects)
    project, notes = projects.find(files) if by_poetry or not files.listed else (None, ())
    lists = () if by_poetry and files.listed and project else files.roots
    lines = requirements.collect([*extra, *(f"-r {path}" for path in lists)], files, "")
    return EnvRequest(
        lines,
        python,
        source if lines.local or project else "",
        project=project,
        imports_from=_imports_from(script, files) if project else "",
        notes=(*notes, *_unread_notes(script, files, project, lines)),
    )


def request_for_file(text: str, files: RequirementFiles = _NO_FILES, *, python: str = "") -> EnvRequest:
    """The environment that the text of a requirements.txt requests."""
    return EnvRequest(requirements.collect([text], files, ""), python)


def _explicit_list(script: TaskScript, files: RequirementFiles, packages: PackageSettings) -> Sequence[str] | None:
    """The task's own list if it is used, else None (docs/internals/clearml-protocol.md#requirements).

    An empty list requests no packages. With the package manager poetry, a repository's project has precedence over any
    list, as in clearml-agent.
    """
    given = script.requirements
    lines = given.pip
    if packages.force_repo_requirements_txt and files.roots:
        lines = None
    elif packages.force_original_requirements and given.org_pip is not None:
        lines = given.org_pip
    if packages.type == "poetry" and files.projects:
        return None
    return lines


def _unread_notes(
    script: TaskScript, files: RequirementFiles, project: Project | None, lines: RequirementLines
) -> tuple[str, ...]:
    """Package lists of the repository that are ignored, one sentence each."""
    used = "requirements.txt" if files.listed else project.path if project else ""
    notes = [
        f"{path} of the repository is not read: "
        + (f"the packages are those of {used}" if used else "give the task a list of packages, or a requirements.txt")
        for path in files.unread
        # Many repositories have lists for development in addition to the one that is used.
        if not used or not any(part.startswith("requirements") for part in path.split("/"))
    ]
    if files.listed and project is None and not lines.local:
        with contextlib.suppress(EnvironmentBuildError):
            if (other := projects.find(files)[0]) is not None:
                notes.append(f"{other.path} of the repository is not read: the packages are those of {used}")
    if script.requirements.conda:
        notes.append(
            "the task's list of conda packages is not used: packages are installed by the names they have for pip "
            "(agent.package_manager.type = conda uses it)"
        )
    return tuple(notes)


def _imports_from(script: TaskScript, files: RequirementFiles) -> str:
    """The folder that Python puts on its path for the task, relative to the root."""
    if script.entry_point.strip().startswith("-"):
        return files.working_dir
    return posixpath.normpath(
        posixpath.join(files.working_dir, posixpath.dirname((script.entry_point.split() or [""])[0]))
    )


def _notebook_packages(script: TaskScript) -> Sequence[str]:
    """Packages that a notebook needs: IPython runs it, and some import nbconvert, which Jupyter brings."""
    if re.search(r"\.ipynb(\s|$)", script.entry_point):
        return ("nbconvert", "ipython")
    return ()


def _requested_python(script: TaskScript, packages: PackageSettings) -> str:
    """Requested version: 3.11 for ``python3.11`` and ``/usr/bin/python3.11``, empty for ``python3``.

    See docs/internals/clearml-protocol.md#interpreter.
    """
    if packages.ignore_requested_python_version:
        return ""
    match = _PYTHON.match(posixpath.basename(script.binary.strip()))
    return match["version"] if match else ""
