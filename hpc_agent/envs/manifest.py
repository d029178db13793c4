"""What stands beside each archive, and what links a task's words to an environment. JSON in the shared cache."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hpc_agent.domain.env import EnvKey


@dataclass(frozen=True)
class Manifest:
    """``files`` and ``unpacked`` (bytes) count what is in the environment; ``size`` and ``sha256`` are the archive's.

    ``packages`` as ``pip freeze`` prints them. ``parts`` are those of the key, the lock aside. ``executable``: real
    path of the base interpreter, which must be on every node, or in the container image ``image`` (its identity).
    ``seconds``: how long building took.
    """

    key: EnvKey
    packages: tuple[str, ...]
    parts: dict[str, object]
    executable: str
    version: str
    libc: str
    size: int
    sha256: str
    files: int
    unpacked: int
    built_at: datetime
    built_by: str
    seconds: float
    image: str = ""


@dataclass(frozen=True)
class Resolution:
    """Which environment a request meant when it was last resolved; ``notes`` for the log of each task that uses it."""

    key: EnvKey
    resolved_at: datetime
    requirements: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why the last try to stage a request failed. ``id`` differs for each try."""

    id: str
    error: str
    passes: bool = False
    """The package index was away: the next try may succeed."""
