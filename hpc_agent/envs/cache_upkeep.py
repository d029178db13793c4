"""Maintenance of the shared cache: list, verify, prune."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from hpc_agent import file_records
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import archive
from hpc_agent.envs.node_cache import remove_tree
from hpc_agent.envs.shared_cache import Manifest, SharedCache

_MIN_AGE = timedelta(hours=1)
"""An environment staged or used more recently may belong to a job whose run directory does not name it yet."""
_LEASE_EXPIRY = timedelta(minutes=10)
"""A job that ran in place has ended if its lease was not renewed for this long (renewed every minute)."""


@dataclass(frozen=True)
class CacheEntry:
    """An environment in the cache. ``size``: bytes that it takes there, unpacked or not; ``uses`` is about right."""

    manifest: Manifest
    size: int
    uses: int
    last_used: datetime


def entries(shared: SharedCache) -> Iterator[CacheEntry]:
    """Every environment that can be used, in no order. Those without a readable manifest are left out."""
    for key in _keys(shared):
        with contextlib.suppress(file_records.CorruptFileError, OSError):
            if manifest := shared.manifest(key):
                uses, last = _use(shared, key)
                in_place = manifest.unpacked if file_records.exists_uncached(shared.unpacked / key) else 0
                yield CacheEntry(manifest, manifest.size + in_place, uses, max(last, manifest.built_at))


def unreadable(shared: SharedCache) -> list[EnvKey]:
    """Folders of environments that have no readable manifest."""
    known = {entry.manifest.key for entry in entries(shared)}
    return sorted(key for key in _keys(shared) if key not in known)


def damage(shared: SharedCache, manifest: Manifest) -> str:
    """Damage of an archive in a sentence, empty if it is intact. Reads every byte."""
    try:
        if not shared.is_complete(manifest):
            return "its archive is missing or cut off"
        return "" if archive.sha256_of(shared.archive(manifest.key)) == manifest.sha256 else "its archive is damaged"
    except OSError as error:
        return f"its archive cannot be read: {error.strerror or error}"


def removable(
    present: Iterable[CacheEntry],
    now: datetime,
    kept: Collection[EnvKey],
    *,
    max_size: int | None = None,
    older_than: timedelta | None = None,
) -> list[CacheEntry]:
    """Entries to remove: unused for ``older_than``, and the longest unused until the rest has ``max_size`` bytes.

    Never those in ``kept``, and none that was staged or used within the last hour. Pure.
    """
    by_age = sorted(present, key=lambda entry: entry.last_used)
    total = sum(entry.size for entry in by_age)
    removable_entries = []
    for entry in by_age:
        age = now - entry.last_used
        if entry.manifest.key in kept or age < _MIN_AGE:
            continue
        too_old = older_than is not None and age > older_than
        too_much = max_size is not None and total > max_size
        if too_old or too_much:
            removable_entries.append(entry)
            total -= entry.size
    return removable_entries


def remove(shared: SharedCache, keys: Sequence[EnvKey]) -> list[EnvKey]:
    """Remove environments from the cache; returns those that could not be removed (another user's)."""
    failed = []
    for key in keys:
        shared.discard(key)
        if file_records.exists_uncached(shared.envs / key):
            failed.append(key)
            continue
        removed = shared.unpacked / f".{key}.old"
        with contextlib.suppress(OSError):
            (shared.unpacked / key).rename(removed)
        remove_tree(removed)
        (shared.uses / key).unlink(missing_ok=True)
    return failed


def remove_stale_requests(shared: SharedCache) -> None:
    """Remove resolutions whose environment is gone, so that lookups stay quick."""
    try:
        names = [path.name for path in shared.requests.iterdir()]
    except FileNotFoundError:
        return
    present = set(_keys(shared))
    for name in names:
        digest, _, kind = name.partition(".")
        resolution = shared.resolution(digest) if kind == "json" else None
        if resolution is None or resolution.key not in present:
            (shared.requests / name).unlink(missing_ok=True)


def in_use(shared: SharedCache) -> set[EnvKey]:
    """Environments that jobs run in place now. Forgets the jobs that are gone."""
    present = set()
    with contextlib.suppress(OSError):
        probe = shared.leases / f".now-{os.getpid()}"
        probe.touch()
        now = probe.stat().st_mtime  # the file server's own time
        probe.unlink()
        for lease in shared.leases.glob("use-*"):
            if now - (lease / "owner").stat().st_mtime < _LEASE_EXPIRY.total_seconds():
                present.add(EnvKey(lease.name.split("-")[1]))
            else:
                shutil.rmtree(lease, ignore_errors=True)
    return present


def _keys(shared: SharedCache) -> list[EnvKey]:
    try:
        return [EnvKey(path.name) for path in shared.envs.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []


def _use(shared: SharedCache, key: EnvKey) -> tuple[int, datetime]:
    try:
        status = (shared.uses / key).stat()
    except OSError:
        return 0, datetime.fromtimestamp(0, timezone.utc)
    return status.st_size, datetime.fromtimestamp(status.st_mtime, timezone.utc)
