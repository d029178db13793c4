"""This program as files, for an image that runs its task itself."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import hpc_agent

_NOT_NEEDED = frozenset({"uv", "virtualenv"})
"""What builds environments: an image has its own, and 60 MB less without these."""


def requirements() -> list[str]:
    """What the program needs, in the versions that run now."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pending = ["hpc-agent"]
    found: dict[str, str] = {}
    while pending:
        for line in importlib.metadata.requires(pending.pop()) or ():
            wanted = Requirement(line)
            name = canonicalize_name(wanted.name)
            if name in found or name in _NOT_NEEDED or "extra" in str(wanted.marker or ""):
                continue
            try:
                version = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = line  # for another Python than ours; the image's may want it
                continue
            found[name] = f"{name}=={version}" + (f"; {wanted.marker}" if wanted.marker else "")
            pending.append(name)
    return sorted(found.values())


def copy_package(into: Path) -> None:
    """The package itself to the new folder ``into``."""
    own = Path(hpc_agent.__file__).parent
    shutil.copytree(own, into, ignore=shutil.ignore_patterns("__pycache__", "server"))
