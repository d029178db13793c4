"""What staging found out about a task's source; travels as JSON in the run directory to the node."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Origin(Enum):
    REPOSITORY = "repository"
    SCRIPT = "script"
    """The text of the script stands in the task itself."""
    NOTHING = "nothing"
    """Neither: only a module or a command is named."""
    FOLDER = "folder"
    """A folder that is there already, whatever the task says."""


@dataclass(frozen=True)
class Submodule:
    """``path`` is relative to the top repository; ``mirror`` as in ``StagedSource``."""

    path: str
    mirror: str
    commit: str
    address: str


@dataclass(frozen=True)
class StagedSource:
    """``commit`` is a full hash; ``mirror`` the folder name below the cache's ``vcs``; ``repository`` has no password.
    Of a folder ``name`` is the path.

    ``notes``: sentences about what will be missing in the checkout, for the task's log.
    """

    origin: Origin
    repository: str = ""
    mirror: str = ""
    name: str = ""
    commit: str = ""
    submodules: tuple[Submodule, ...] = ()
    notes: tuple[str, ...] = ()
