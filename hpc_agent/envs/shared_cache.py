"""Shared cache of environments: one folder per key, complete from the moment it is visible; records are JSON.

envs/<key>/env.tar.zst, lock.txt, manifest.json   published by one rename, never changed
envs/<key>/env.squashfs                           the same to be mounted, where that is configured
requests/<digest>.json, .failed                   the last resolution of a request, or why it failed
uses/…                                            how often and when they were used (``cache_uses``)
leases/…                                          who builds what
unpacked/<key>/                                   only for nodes without room of their own
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from hpc_agent import file_records
from hpc_agent.cache_uses import UseRecords
from hpc_agent.domain.env import EnvKey
from hpc_agent.errors import EnvironmentBuildError

ARCHIVE = "env.tar.zst"
LOCK = "lock.txt"
_IMAGE = "env.squashfs"
_MANIFEST = "manifest.json"
_ABANDONED_SECONDS = 3600.0

T = TypeVar("T")


class SharedCache:
    """Paths and records in ``cache_dir``. New files get the access that ``cache_dir`` grants its group."""

    def __init__(self, cache_dir: Path) -> None:
        self.root = cache_dir
        self.envs = cache_dir / "envs"
        self.leases = cache_dir / "leases"
        self.unpacked = cache_dir / "unpacked"
        self.uses = UseRecords(cache_dir / "uses")
        self.requests = cache_dir / "requests"

    def archive(self, key: EnvKey) -> Path:
        return self.envs / key / ARCHIVE

    def image(self, key: EnvKey) -> Path:
        return self.envs / key / _IMAGE

    def manifest(self, key: EnvKey) -> Manifest | None:
        """The manifest of a published environment, or None. Sees at once what another node has just published.

        Raises:
            CorruptFileError: it is there but cannot be understood.
            OSError: it may not be read.
        """
        # By listing the folder: NFS caches for 30 s that a name does not exist
        # (docs/internals/performance.md#nfs-visibility).
        if not file_records.exists_uncached(self.envs / key):
            return None
        return file_records.read_record(self.envs / key / _MANIFEST, Manifest)

    def is_complete(self, manifest: Manifest) -> bool:
        """Whether the archive exists in its full length."""
        try:
            return self.archive(manifest.key).stat().st_size == manifest.size
        except OSError:
            return False

    @contextmanager
    def publishing(self, key: EnvKey) -> Iterator[Path]:
        """Enter with a folder to write archive, lock and manifest to; on leaving it becomes the environment's own.

        If another process was first, its result is the same and this one is removed.

        Raises:
            EnvironmentBuildError: the shared folder is full or not writable.
        """
        partial = self.envs / f".{key}.{secrets.token_hex(4)}.new"
        try:
            file_records.ensure_shared_directory(self.envs)
            partial.mkdir()
            self._remove_leftovers(partial)
            yield partial
            # The folder first: its content gets the access that it has itself.
            for path in (partial, *partial.iterdir()):
                file_records.share_like_parent(path)
            file_records.fsync_directory(partial)
            file_records.rename_new(partial, self.envs / key)
        except OSError as error:
            raise self.storage_error(error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def publish_image(self, key: EnvKey, make: Callable[[Path], None]) -> None:
        """Add the image that ``make`` writes to a published environment.

        Raises:
            EnvironmentBuildError: the shared folder is full or not writable.
        """
        partial = self.envs / key / f".{secrets.token_hex(4)}.new"
        try:
            make(partial)
            file_records.share_like_parent(partial)
            partial.rename(self.image(key))
            file_records.fsync_directory(partial.parent)
        except OSError as error:
            raise self.storage_error(error) from error
        finally:
            partial.unlink(missing_ok=True)

    def _remove_leftovers(self, newest: Path) -> None:
        """Remove folders of killed writers: an hour older than ``newest``, where packing takes seconds."""
        now = newest.stat().st_mtime  # the file server's own time
        for entry in self.envs.glob(".*"):
            with contextlib.suppress(OSError):
                if now - entry.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(entry)

    def write_manifest(self, folder: Path, manifest: Manifest) -> None:
        file_records.write_record(folder / _MANIFEST, manifest)

    def discard(self, key: EnvKey) -> None:
        """Remove a damaged environment, by a rename first, so that the next staging builds it again."""
        with contextlib.suppress(OSError):
            discarded = self.envs / f".{key}.{secrets.token_hex(4)}.bad"
            (self.envs / key).rename(discarded)
            shutil.rmtree(discarded, ignore_errors=True)

    def resolution(self, digest: str) -> Resolution | None:
        """The last resolution of the request, or None."""
        return self._request(f"{digest}.json", Resolution)

    def failure(self, digest: str) -> Failure | None:
        """Why the last try to stage the request failed, or None if it did not."""
        return self._request(f"{digest}.failed", Failure)

    def _request(self, name: str, type: Callable[..., T]) -> T | None:
        try:
            if not file_records.exists_uncached(self.requests / name):
                return None
            return file_records.read_record(self.requests / name, type)
        except (file_records.CorruptFileError, PermissionError):
            return None  # the next staging makes it again

    def write_outcome(self, digest: str, outcome: Resolution | Failure) -> None:
        """Record how staging a request ended.

        Raises:
            EnvironmentBuildError: the shared folder is full or not writable.
        """
        failed = self.requests / f"{digest}.failed"
        target = failed if isinstance(outcome, Failure) else self.requests / f"{digest}.json"
        try:
            file_records.ensure_shared_directory(self.requests)
            if target != failed:
                failed.unlink(missing_ok=True)
            # An installer's message may quote private paths and addresses: only for the user who staged.
            file_records.write_record(target, outcome, mode=0o600 if target == failed else 0o644)
            if target != failed:
                file_records.share_like_parent(target)
        except OSError as error:
            raise self.storage_error(error) from error

    def storage_error(self, error: OSError) -> EnvironmentBuildError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room with `hpc-agent cache prune`" if full else "the user who builds needs write access there"
        reason = error.strerror or error
        return EnvironmentBuildError(f"the environment cannot be stored in {self.root}: {reason}; {remedy}")


class Manifest(msgspec.Struct, frozen=True):
    """Manifest of an archive. ``files`` and ``unpacked`` (bytes): the environment's content; ``size`` and ``sha256``:
    of the archive.

    ``packages`` as ``pip freeze`` prints them. ``parts`` are those of the key, the lock aside. ``executable``: real
    path of the base interpreter, which must be on every node, or in the container image ``image`` (its identity).
    ``seconds``: how long building took. ``conda``: it has an interpreter of its own, and files that name its folder.
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
    conda: bool = False


class Resolution(msgspec.Struct, frozen=True):
    """Key that a request was last resolved to; ``notes`` for the log of each task that uses it."""

    key: EnvKey
    resolved_at: datetime
    requirements: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """Failure of the last try to stage a request. ``id`` differs for each try."""

    id: str
    error: str
    transient: bool = msgspec.field(default=False, name="passes")
    """The package index was unreachable: the next try may succeed."""
