"""Inputs of a task's Python environment, before anything is resolved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NewType

import msgspec

EnvKey = NewType("EnvKey", str)
"""32 hexadecimal digits, the hash of everything that an environment's content depends on."""


class RequirementFiles(msgspec.Struct, frozen=True):
    """Requirement files of a repository at a commit, uncommitted changes applied.

    ``roots``: every ``requirements.txt`` from the repository's root down to the working folder, in that order.
    ``listed``: whether the commit itself has one; one that only uncommitted changes create is clearml-task's, and names
    clearml alone. ``projects``: folders that have a ``pyproject.toml``, ``setup.py`` or ``setup.cfg``, the nearest to
    the working folder first. ``texts``: all these and the files that they include, by path relative to the root.
    ``working_dir`` likewise. ``unread``: files about packages that nothing here reads. ``locks``: lock files in the
    folders of ``projects``. ``conda``: the texts of every ``environment.yml`` by path, the nearest first.
    """

    roots: tuple[str, ...] = ()
    texts: Mapping[str, str] = msgspec.field(default_factory=dict)
    working_dir: str = ""
    projects: tuple[str, ...] = ()
    listed: bool = False
    unread: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()
    conda: Mapping[str, str] = msgspec.field(default_factory=dict)
