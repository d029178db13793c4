"""Shared cache of environments: one folder per key, complete from the moment it is visible; records are JSON.

envs/<key>/env.tar.zst, lock.txt, manifest.json   published by one rename, never changed
envs/<key>/env.squashfs                           the same to be mounted, where that is configured
requests/<digest>.json, .failed                   what a task's words meant last, or why that failed
uses/<key>                                        one byte for each use: size and time tell how many and when
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
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from hpc_agent import file_records
from hpc_agent.domain.env import EnvKey
from hpc_agent.errors import EnvironmentBuildError

ARCHIVE = "env.tar.zst"
LOCK = "lock.txt"
_IMAGE = "env.squashfs"
_MANIFEST = "manifest.json"
_ABANDONED = 3600.0

T = TypeVar("T")


class SharedCache:
    """All names in ``cache_dir``. What may be written has the access that ``cache_dir`` grants its group."""

    def __init__(self, cache_dir: Path) -> None:
        self.root = cache_dir
        self.envs = cache_dir / "envs"
        self.leases = cache_dir / "leases"
        self.unpacked = cache_dir / "unpacked"
        self.uses = cache_dir / "uses"
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
        # Listed, not looked for: a name that was missed once stays missing for 30 s
        # (docs/internals/performance.md#nfs-visibility).
        if not file_records.exists_uncached(self.envs / key):
            return None
        return file_records.read_record(self.envs / key / _MANIFEST, Manifest)

    def is_whole(self, manifest: Manifest) -> bool:
        """Whether the archive is there in its full length."""
        try:
            return self.archive(manifest.key).stat().st_size == manifest.size
        except OSError:
            return False

    @contextmanager
    def publishing(self, key: EnvKey) -> Iterator[Path]:
        """Enter with a folder to write archive, lock and manifest to; on leaving it becomes the environment's own.

        Whoever comes second has made the same: theirs is thrown away.

        Raises:
            EnvironmentBuildError: the shared folder is full or not writable.
        """
        making = self.envs / f".{key}.{secrets.token_hex(4)}.new"
        try:
            file_records.ensure_shared_directory(self.envs)
            making.mkdir()
            self._remove_leftovers(making)
            yield making
            # The folder first: its content gets the access that it has itself.
            for path in (making, *making.iterdir()):
                file_records.share_like_parent(path)
            file_records.fsync_directory(making)
            file_records.rename_new(making, self.envs / key)
        except OSError as error:
            raise self.cannot_write(error) from error
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def publish_image(self, key: EnvKey, make: Callable[[Path], None]) -> None:
        """Add the image that ``make`` writes to a published environment.

        Raises:
            EnvironmentBuildError: the shared folder is full or not writable.
        """
        making = self.envs / key / f".{secrets.token_hex(4)}.new"
        try:
            make(making)
            file_records.share_like_parent(making)
            making.rename(self.image(key))
            file_records.fsync_directory(making.parent)
        except OSError as error:
            raise self.cannot_write(error) from error
        finally:
            making.unlink(missing_ok=True)

    def _remove_leftovers(self, newest: Path) -> None:
        """What killed writers left: packing takes seconds, so what is an hour older than ``newest`` is nobody's."""
        now = newest.stat().st_mtime  # the file server's own time
        for entry in self.envs.glob(".*"):
            with contextlib.suppress(OSError):
                if now - entry.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(entry)

    def write_manifest(self, folder: Path, manifest: Manifest) -> None:
        file_records.write_record(folder / _MANIFEST, manifest)

    def set_aside(self, key: EnvKey) -> None:
        """Take a damaged environment out of sight, so that the next staging builds it anew."""
        with contextlib.suppress(OSError):
            grave = self.envs / f".{key}.{secrets.token_hex(4)}.bad"
            (self.envs / key).rename(grave)
            shutil.rmtree(grave, ignore_errors=True)

    def resolution(self, digest: str) -> Resolution | None:
        """What the request meant last, or None."""
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

    def remember(self, digest: str, outcome: Resolution | Failure) -> None:
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
            # A failure is told in an installer's words, which are for the one who staged.
            file_records.write_record(target, outcome, mode=0o600 if target == failed else 0o644)
            if target != failed:
                file_records.share_like_parent(target)
        except OSError as error:
            raise self.cannot_write(error) from error

    def note(self, key: EnvKey, *, use: bool) -> None:
        """Remember that the environment was staged for a job, or used by one, for ``hpc-agent cache``.

        Of no weight: a reader without the right to write is not counted.
        """
        path = self.uses / key
        with contextlib.suppress(OSError):
            if not path.exists():
                file_records.ensure_shared_directory(self.uses)
                path.touch()
                file_records.share_like_parent(path)
            if use:
                with path.open("ab") as counter:
                    counter.write(b".")
            else:
                path.touch()

    def cannot_write(self, error: OSError) -> EnvironmentBuildError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room with `hpc-agent cache prune`" if full else "whoever builds must be able to write there"
        words = error.strerror or error
        return EnvironmentBuildError(f"the environment cannot be stored in {self.root}: {words}; {remedy}")


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
