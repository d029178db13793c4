"""Maintenance of the shared cache of environments: list, verify, prune."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from hpc_agent import file_records
from hpc_agent.cache_uses import Uses
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import archive
from hpc_agent.envs.shared_cache import Manifest, SharedCache
from hpc_agent.file_records import remove_tree


class CacheEntry(msgspec.Struct, frozen=True):
    """An environment in the cache. ``size``: bytes that it takes there, unpacked or not; ``uses`` is about right."""

    manifest: Manifest
    size: int
    uses: int
    last_used: datetime

    @property
    def name(self) -> str:
        return self.manifest.key


def entries(shared: SharedCache) -> Iterator[CacheEntry]:
    """Every environment that can be used, in no order. Those without a readable manifest are left out."""
    for key in _keys(shared):
        with contextlib.suppress(file_records.CorruptFileError, OSError):
            if manifest := shared.manifest(key):
                uses = shared.uses.of(key) or Uses(0, manifest.built_at)
                in_place = manifest.unpacked if file_records.exists_uncached(shared.unpacked / key) else 0
                last = max(uses.last, manifest.built_at)
                yield CacheEntry(manifest, manifest.size + in_place, uses.count, last)


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
        shared.uses.forget(key)
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


def _keys(shared: SharedCache) -> list[EnvKey]:
    try:
        return [EnvKey(path.name) for path in shared.envs.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []
