"""Submodules of a commit: their addresses, commits and mirrors."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.errors import SourceError
from hpc_agent.progress import Progress
from hpc_agent.retry import NETWORK_BRIEFLY, retry
from hpc_agent.sources import git, lfs, remote
from hpc_agent.sources.layout import Submodule
from hpc_agent.sources.mirror import Mirror, Revision

_MAX_DEPTH = 8
"""Submodules within submodules; a repository that names itself would never end."""

Resolve = Callable[[str], remote.Remote]
"""Function from an address to its remote under a site's settings; raises SourceError."""


class _SubmoduleEntry(msgspec.Struct, frozen=True):
    path: str
    address: str
    commit: str


def stage(
    mirror: Mirror, commit: str, resolve: Resolve, clock: Clock, progress: Progress
) -> tuple[tuple[Submodule, ...], tuple[str, ...]]:
    """Mirror every submodule that ``commit`` names, theirs included; one that cannot be fetched becomes a note.

    Not an error: clearml-agent ignores a submodule that fails, and many tasks do not need all of theirs.
    """

    lfs_notes: list[str] = []

    def fetched(child: Mirror, revision: Revision) -> None:
        at = retry(lambda: child.obtain(revision, progress), NETWORK_BRIEFLY, clock)
        if note := lfs.fetch(child, at, clock):
            lfs_notes.append(note)

    found, notes = _walk(mirror, commit, resolve, clock, fetched)
    return found, (*notes, *lfs_notes)


def find(mirror: Mirror, commit: str, resolve: Resolve, clock: Clock) -> tuple[tuple[Submodule, ...], tuple[str, ...]]:
    """Submodules as by ``stage``, from existing mirrors only."""

    def present(child: Mirror, revision: Revision) -> None:
        if child.commit_of(revision) is None:
            raise SourceError(f"{revision.label} of {child.remote.url} is not in the cache")

    return _walk(mirror, commit, resolve, clock, present)


def _walk(
    mirror: Mirror, commit: str, resolve: Resolve, clock: Clock, get: Callable[[Mirror, Revision], None]
) -> tuple[tuple[Submodule, ...], tuple[str, ...]]:
    found: list[Submodule] = []
    notes: list[str] = []
    pending = [(mirror, commit, "", 0)]
    while pending:
        parent, at, prefix, depth = pending.pop(0)
        for entry in _entries(parent, at):
            path = posixpath.join(prefix, entry.path)
            try:
                if depth >= _MAX_DEPTH:
                    raise SourceError(f"it is nested more than {_MAX_DEPTH} deep")
                where = resolve(remote.submodule_address(parent.remote.url, entry.address))
                child = Mirror(mirror.path.with_name(where.folder), where, clock)
                get(child, Revision((entry.commit,), False, f"commit {entry.commit}"))
            except SourceError as error:
                notes.append(f"submodule {path} will be missing: {error}")
                continue
            found.append(Submodule(path, child.path.name, entry.commit, where.url))
            pending.append((child, entry.commit, path, depth + 1))
    return tuple(found), tuple(notes)


def _entries(mirror: Mirror, commit: str) -> Iterator[_SubmoduleEntry]:
    """Submodules that have both an address in .gitmodules and a commit in the tree, at a path inside."""
    listed = git.run(["config", "--null", "--blob", f"{commit}:.gitmodules", "--list"], mirror=mirror.path)
    if not listed.ok:
        return
    fields: dict[str, dict[str, str]] = {}
    for item in listed.stdout.split("\0"):
        key, _, value = item.partition("\n")
        section, _, rest = key.partition(".")
        name, _, variable = rest.rpartition(".")
        if section == "submodule" and name:
            fields.setdefault(name, {})[variable] = value
    for values in fields.values():
        path, address = values.get("path", ""), values.get("url", "")
        if address and path and is_inside(path) and (at := _commit_at(mirror, commit, path)):
            yield _SubmoduleEntry(path, address, at)


def _commit_at(mirror: Mirror, commit: str, path: str) -> str | None:
    answer = git.run(["ls-tree", "-z", "--full-tree", commit, "--", path], mirror=mirror.path)
    mode, _, rest = answer.stdout.partition(" ")
    return rest.split()[1] if mode == "160000" else None


def is_inside(path: str) -> bool:
    """Whether a relative path from a repository stays in it and out of its ``.git``."""
    parts = Path(path).parts
    return bool(parts) and not Path(path).is_absolute() and ".." not in parts and ".git" not in parts
