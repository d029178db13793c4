"""Conversion of a poetry project for uv: read by poetry-core, written for ``uv pip compile``.

The versions, hashes and commits of ``poetry.lock`` hold, each under its markers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.project import parsed
from hpc_agent.errors import EnvironmentBuildError

if TYPE_CHECKING:
    from poetry.core.constraints.version import VersionConstraint
    from poetry.core.packages.dependency import Dependency

_LOCK = "poetry.lock"
_DEFAULT = ("default", "primary", "")
_PYPI = "https://pypi.org/simple"


class UvProject(msgspec.Struct, frozen=True):
    """Project in uv's format. ``file``: its pyproject.toml; the rest as in ``project_input.ProjectInput``."""

    file: Path
    constraints: tuple[str, ...] = ()
    hashes: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()


class _Lines(msgspec.Struct):
    """Requirement lines, and where uv finds what they name."""

    lines: list[str] = msgspec.field(default_factory=list)
    sources: dict[str, list[dict[str, str]]] = msgspec.field(default_factory=dict)
    prereleases: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)


def as_uv_project(folder: Path, into: Path, base: Interpreter) -> UvProject:
    """Write the project in ``folder`` to the new folder ``into``.

    Raises:
        EnvironmentBuildError: poetry-core cannot read it; with its message.
    """
    locked = _Locked(folder, base)
    found = _Lines()
    local_config: Mapping[str, Any] = {}
    try:
        from poetry.core.factory import Factory

        read = Factory().create_poetry(folder)
        local_config = read.local_config
        for name in sorted(read.package.dependency_group_names()):
            for dependency in read.package.dependency_group(name).dependencies_for_locking:
                if not dependency.is_optional():
                    _add(dependency, locked, found)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise EnvironmentBuildError(f"the task's poetry project cannot be read: {error}") from error
    into.mkdir()
    file = into / "pyproject.toml"
    file.write_text(_toml(found, list(local_config.get("source") or ())), encoding="utf-8")
    notes = (*found.notes, *locked.notes)
    return UvProject(file, tuple(locked.constraints), locked.hashes, tuple(dict.fromkeys(notes)))


def _add(dependency: Dependency, locked: _Locked, found: _Lines) -> None:
    from poetry.core.packages.directory_dependency import DirectoryDependency
    from poetry.core.packages.file_dependency import FileDependency
    from poetry.core.packages.vcs_dependency import VCSDependency

    marker = "" if dependency.marker.is_any() else str(dependency.marker)
    source: dict[str, str] = {}
    text = dependency.complete_name
    if isinstance(dependency, DirectoryDependency | FileDependency):
        source = {"path": str(dependency.full_path)}
    elif isinstance(dependency, VCSDependency):
        source = {"git": dependency.source_url or ""}
        if dependency.source_subdirectory:
            source["subdirectory"] = dependency.source_subdirectory
        if at := locked.commits.get(dependency.name) or dependency.reference:
            source["rev"] = at
    elif dependency.is_url():
        source = {"url": dependency.source_url or ""}
    else:
        text += _specifier(dependency, locked, found)
        if dependency.allows_prereleases():
            found.prereleases.append(dependency.name)
        if dependency.source_name:
            source = {"index": dependency.source_name}
    found.lines.append(f"{text} ; {marker}" if marker else text)
    if source:
        found.sources.setdefault(dependency.name, []).append({**source, **({"marker": marker} if marker else {})})


def _specifier(dependency: Dependency, locked: _Locked, found: _Lines) -> str:
    """The versions in pip's syntax, which has no "or": the lock decides, or else the newest of the ranges is used."""
    text = _pip_specifier(dependency)
    if "||" not in text:
        return text
    if dependency.name in locked.versions:
        return ""
    newest = _pip_specifier(dependency.with_constraint(_ranges(dependency.constraint)[-1]))
    found.notes.append(
        f"of the versions {dependency.pretty_constraint} of {dependency.name} those {newest} are asked for: "
        "requirements of pip have no 'or'"
    )
    return newest


def _pip_specifier(dependency: Dependency) -> str:
    return dependency.base_pep_508_name.removeprefix(dependency.complete_name).strip(" ()")


def _ranges(constraint: VersionConstraint) -> Sequence[VersionConstraint]:
    """Ranges of a union, the lowest first."""
    from poetry.core.constraints.version import VersionUnion

    return constraint.ranges if isinstance(constraint, VersionUnion) else [constraint]


class _Locked:
    """Content of ``poetry.lock`` that one environment needs."""

    def __init__(self, folder: Path, base: Interpreter) -> None:
        self.constraints: list[str] = []
        self.hashes: dict[str, tuple[str, ...]] = {}
        self.commits: dict[str, str] = {}
        self.versions: set[str] = set()
        self.notes: list[str] = []
        file = folder / _LOCK
        if not file.is_file():
            return
        packages = parsed(_LOCK, file.read_text(encoding="utf-8-sig"))["package"]
        by_name: dict[str, list[dict[str, Any]]] = {}
        for package in packages if isinstance(packages, list) else ():
            by_name.setdefault(_canonical(str(package["name"])), []).append(package)
        for name, entries in by_name.items():
            self._take(name, entries, base)

    def _take(self, name: str, entries: list[dict[str, Any]], base: Interpreter) -> None:
        indexed = [entry for entry in entries if _kind(entry) in ("", "legacy")]
        for entry in entries:
            if _kind(entry) == "git":
                self.commits[name] = str(entry["source"].get("resolved_reference", ""))
        usable = [entry for entry in indexed if _runs_on(entry, base)] if len(indexed) > 1 else indexed
        markers = [_marker(entry) for entry in usable]
        if len(usable) > 1 and not all(markers):
            self.notes.append(
                f"{_LOCK} has {len(usable)} versions of {name} without markers that tell them apart: "
                "`poetry lock` of poetry 2 adds them"
            )
            return
        for entry, marker in zip(usable, markers, strict=True):
            version = f"{name}=={entry['version']}"
            # The only version is the one, whatever asks for it.
            self.constraints.append(f"{version} ; {marker}" if len(usable) > 1 else version)
            self.versions.add(name)
            files = entry.get("files")
            hashes = [str(item.get("hash", "")) for item in files if isinstance(item, dict)] if files else []
            if hashes and all(hashes):
                self.hashes[version] = tuple(sorted(hashes))


def _kind(entry: Mapping[str, Any]) -> str:
    source = entry.get("source")
    return str(source.get("type", "")) if isinstance(source, dict) else ""


def _marker(entry: Mapping[str, Any]) -> str:
    """When the version is meant, by any of the groups that name it."""
    marker = entry.get("markers", "")
    if isinstance(marker, dict):
        return " or ".join(f"({text})" for text in marker.values() if text)
    return str(marker)


def _runs_on(entry: Mapping[str, Any], base: Interpreter) -> bool:
    from poetry.core.constraints.version import Version, parse_constraint

    python = Version.parse(".".join(map(str, base.version)))
    return parse_constraint(str(entry.get("python-versions", "*"))).allows(python)


def _canonical(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def _toml(found: _Lines, indexes: list[dict[str, Any]]) -> str:
    return "".join(f"{line}\n" for line in _toml_lines(found, indexes))


def _toml_lines(found: _Lines, indexes: list[dict[str, Any]]) -> Iterator[str]:
    yield from ("[project]", 'name = "task-of-poetry"', 'version = "0"')
    yield f"dependencies = [{', '.join(map(_quoted, found.lines))}]"
    if found.prereleases:
        yield "[tool.uv.prerelease-package]"
        yield from (f'{_quoted(name)} = "allow"' for name in dict.fromkeys(found.prereleases))
    yield "[tool.uv.sources]"
    for name, sources in found.sources.items():
        entries = ", ".join(_inline(source) for source in sources)
        yield f"{_quoted(name)} = [{entries}]" if len(sources) > 1 else f"{_quoted(name)} = {entries}"
    main = next((index for index in indexes if str(index.get("priority", "")).lower() in _DEFAULT), None)
    for index in indexes:
        name = str(index.get("name", ""))
        url = str(index.get("url") or (_PYPI if name.lower() == "pypi" else ""))
        yield from ("[[tool.uv.index]]", f"name = {_quoted(name)}", f"url = {_quoted(url)}")
        if str(index.get("priority", "")).lower() == "explicit":
            yield "explicit = true"
        elif index is main:
            # A primary source takes the place of PyPI, unless that is among them.
            yield "default = true"


def _inline(source: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{key} = {_quoted(value)}" for key, value in source.items()) + " }"


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)
