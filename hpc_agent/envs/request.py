"""What a task asks of its Python environment: a value that is the same on the login node and on the compute node."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from hpc_agent.config.settings import PackageSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import Script
from hpc_agent.envs import pyproject, requirements
from hpc_agent.envs.requirements import Lines

FORMAT = 1
"""Part of every digest and key: raise it when what is built from the same words changes."""

_NO_LINES = Lines()
_NO_FILES = RequirementFiles()
_PYTHON = re.compile(r"^python(?P<version>\d+\.\d+)(?:\.\d+)?$")


@dataclass(frozen=True)
class EnvRequest:
    """``python``: ``3.11``, or empty for whatever is there. ``source``: identity of the code that local requirement
    lines (``./lib``) are built from, empty where there are none. ``image``: identity of the container image whose
    Python is meant, empty for this site's own."""

    lines: Lines = _NO_LINES
    python: str = ""
    source: str = ""
    image: str = ""

    @property
    def needs_source(self) -> bool:
        """Whether building it needs a checkout of the task's repository."""
        return bool(self.lines.local)

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
        ]
        return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def request_for(
    script: Script,
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
    lines = _lines(script, files, packages, [*also, *_implied(script)])
    return EnvRequest(lines, _requested_python(script, packages), source if lines.local else "")


def request_for_file(text: str, files: RequirementFiles = _NO_FILES, *, python: str = "") -> EnvRequest:
    """The environment that the text of a requirements.txt asks for."""
    return EnvRequest(requirements.collect([text], files, ""), python)


def _lines(script: Script, files: RequirementFiles, packages: PackageSettings, also: Sequence[str]) -> Lines:
    """Which list counts: wire.md 4.9. A list that is there but empty asks for nothing, and means it.

    Where a site says poetry, a repository's project counts before any list, as with the reference.
    """
    wanted = script.requirements
    chosen = wanted.pip
    if packages.force_repo_requirements_txt and files.roots:
        chosen = None
    elif packages.force_original_requirements and wanted.org_pip is not None:
        chosen = wanted.org_pip
    by_poetry = packages.type == "poetry" and bool(files.project)
    if chosen is not None and not by_poetry:
        return requirements.collect([*also, *chosen], files, files.working_dir)
    lines, limits = _of_project(files) if files.project and (by_poetry or not files.listed) else ([], [])
    lists = () if by_poetry and files.listed else files.roots
    texts = [*also, *(f"-r {path}" for path in lists), *lines]
    return requirements.collect(texts, files, "", constraints=limits)


def _of_project(files: RequirementFiles) -> tuple[list[str], list[str]]:
    """Requirements and constraints of the repository's pyproject.toml, paths relative to the root."""
    folder = posixpath.dirname(files.project)
    lines, limits = pyproject.dependencies(folder, files.texts)
    return [requirements.canonical(line, folder) for line in lines], limits


def _implied(script: Script) -> Sequence[str]:
    """A notebook is converted by what must then be there."""
    if re.search(r"\.ipynb(\s|$)", script.entry_point):
        return ("nbconvert", "ipython")
    return ()


def _requested_python(script: Script, packages: PackageSettings) -> str:
    """``python3.11`` and ``/usr/bin/python3.11`` ask for 3.11; ``python3`` asks for nothing (wire.md 4.7)."""
    if packages.ignore_requested_python_version:
        return ""
    match = _PYTHON.match(posixpath.basename(script.binary.strip()))
    return match["version"] if match else ""
