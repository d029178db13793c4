"""The shared cache of environments: one folder for each, complete from the moment it can be seen.

envs/<key>/env.tar.zst, manifest.json    published by one rename, never changed
requests/<digest>.json                   which key a task's words meant last
leases/…                                 who builds what
unpacked/<key>/                          only for nodes without local disk
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_agent import files
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs.manifest import Manifest, Resolution
from hpc_agent.errors import EnvironmentBuildError

ARCHIVE = "env.tar.zst"
_MANIFEST = "manifest.json"


class SharedCache:
    def __init__(self, cache_dir: Path) -> None:
        self.root = cache_dir
        self.envs = cache_dir / "envs"
        self.leases = cache_dir / "leases"
        self.unpacked = cache_dir / "unpacked"
        self._requests = cache_dir / "requests"

    def archive(self, key: EnvKey) -> Path:
        return self.envs / key / ARCHIVE

    def manifest(self, key: EnvKey) -> Manifest | None:
        """The manifest of a published environment, or None. Sees at once what another node has just published."""
        if not files.visible(self.envs / key):
            return None
        return files.read_record(self.envs / key / _MANIFEST, Manifest)

    def is_whole(self, manifest: Manifest) -> bool:
        """Whether the archive is there in its full length."""
        try:
            return self.archive(manifest.key).stat().st_size == manifest.size
        except OSError:
            return False

    @contextmanager
    def publishing(self, key: EnvKey) -> Iterator[Path]:
        """Enter with a folder to write archive and manifest to; on leaving it becomes the environment's own.

        Whoever comes second has made the same: theirs is thrown away.

        Raises:
            EnvironmentBuildError: the shared folder is full or not writable.
        """
        making = self.envs / f".{key}.{secrets.token_hex(4)}.new"
        try:
            files.ensure_directory(self.envs)
            making.mkdir()
            yield making
            files.fsync_directory(making)
            files.rename_new(making, self.envs / key)
        except OSError as error:
            raise _cannot_write(self.root, error) from error
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def write_manifest(self, folder: Path, manifest: Manifest) -> None:
        files.write_record(folder / _MANIFEST, manifest)

    def set_aside(self, key: EnvKey) -> None:
        """Take a damaged environment out of sight, so that the next staging builds it anew."""
        with contextlib.suppress(OSError):
            grave = self.envs / f".{key}.{secrets.token_hex(4)}.bad"
            (self.envs / key).rename(grave)
            shutil.rmtree(grave, ignore_errors=True)

    def resolution(self, digest: str) -> Resolution | None:
        """What the request meant last, or None."""
        try:
            return files.read_record(self._requests / f"{digest}.json", Resolution)
        except files.CorruptFileError:
            return None  # it is made again by the next staging

    def remember(self, digest: str, resolution: Resolution) -> None:
        """
        Raises:
            EnvironmentBuildError: the shared folder is full or not writable.
        """
        try:
            files.ensure_directory(self._requests)
            files.write_record(self._requests / f"{digest}.json", resolution)
        except OSError as error:
            raise _cannot_write(self.root, error) from error


def _cannot_write(root: Path, error: OSError) -> EnvironmentBuildError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "make room with `hpc-agent cache prune`" if full else "it must be writable for whoever builds"
    return EnvironmentBuildError(f"the environment cannot be stored in {root}: {error.strerror or error}; {remedy}")
