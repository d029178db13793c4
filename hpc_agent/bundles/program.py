"""This program as it is installed here: its own package, and the packages that it needs to run tasks."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterator
from pathlib import Path

import hpc_agent

_BUILD_TOOLS = frozenset({"uv", "virtualenv"})
"""Packages that build environments: where all is built they are not needed, and take 60 MB."""


def program_requirements() -> list[str]:
    """This program's dependencies in the versions that are installed here."""
    return sorted(
        f"{name}=={found.version}" + (f"; {marker}" if marker else "") if found else line
        for name, line, marker, found in _needed()
    )


def program_distributions() -> list[importlib.metadata.Distribution]:
    """This program and its dependencies, as far as they are installed here."""
    needed = (found for _, _, _, found in _needed() if found is not None)
    return [importlib.metadata.distribution("hpc-agent"), *needed]


def _needed() -> Iterator[tuple[str, str, str, importlib.metadata.Distribution | None]]:
    """Each dependency once: name, requirement line, its marker, and what is installed. None: nothing, as the line is
    for another Python than ours; that of an image may need it."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pending = ["hpc-agent"]
    seen: set[str] = set()
    while pending:
        for line in importlib.metadata.requires(pending.pop()) or ():
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            marker = str(requirement.marker or "")
            if name in seen or name in _BUILD_TOOLS or "extra" in marker:
                continue
            seen.add(name)
            try:
                found = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError:
                yield name, line, marker, None
                continue
            yield name, line, marker, found
            pending.append(name)


def copy_program(into: Path) -> None:
    """Copy this program's package to the new folder ``into``."""
    own = Path(hpc_agent.__file__).parent
    shutil.copytree(own, into, ignore=shutil.ignore_patterns("__pycache__", "server"))
