"""Environments unpacked on a node: once for each key, shared by all jobs of the user there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_agent import files
from hpc_agent.envs import archive
from hpc_agent.envs.manifest import Manifest

_ROOM = 64 << 20
"""Bytes to leave free beside an unpacked environment: the job wants to write something too."""


def own_folder(scratch: Path) -> Path | None:
    """A folder of this user's in ``scratch``, or None if there can be none that nobody else writes to.

    In a shared /tmp anybody may have made the name first: what runs from it must be our own.
    """
    folder = scratch / f"hpc-agent-{os.getuid()}"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
    return folder if private and os.access(folder, os.W_OK) else None


class NodeCache:
    """Unpacked environments below ``folder``, which is on a local disk and belongs to the user."""

    def __init__(self, folder: Path) -> None:
        self._envs = folder / "envs"
        self._locks = folder / "locks"

    def has_room(self, manifest: Manifest) -> bool:
        try:
            return shutil.disk_usage(self._envs.parent).free > manifest.unpacked + manifest.files * 2048 + _ROOM
        except OSError:
            return False

    def holds(self, manifest: Manifest) -> bool:
        return is_complete(self._envs / manifest.key, manifest)

    def obtain(self, manifest: Manifest, source: Path, progress: Callable[[str], None]) -> tuple[Path, bool]:
        """The environment's folder, and whether it had to be unpacked now. One job unpacks, others wait for it.

        Raises:
            ArchiveError: the archive is damaged.
            OSError, ProcessError: this disk is full or broken.
        """
        target = self._envs / manifest.key
        if is_complete(target, manifest):
            return target, False
        files.ensure_directory(self._envs)
        with self._alone(manifest.key):
            if is_complete(target, manifest):
                return target, False
            progress(f"Unpacking the environment {manifest.key} ({manifest.unpacked / 1e6:.0f} MB) to {target}")
            self._remove_leftovers(manifest.key)
            unpack_to(source, target)
        return target, True

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        files.ensure_directory(self._locks)
        descriptor = os.open(self._locks / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _remove_leftovers(self, name: str) -> None:
        """What a killed job left half unpacked, and what a cleaner of /tmp left half deleted."""
        for entry in self._envs.iterdir():
            if entry.name == name or entry.name.startswith(f".{name}."):
                remove_tree(entry)


def unpack_to(source: Path, target: Path) -> None:
    """Unpack next to ``target``, then rename: nobody sees half an environment.

    Raises:
        ArchiveError, OSError, ProcessError: as ``archive.unpack``.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    try:
        archive.unpack(source, part)
        files.rename_new(part, target)
    finally:
        remove_tree(part)


def is_complete(folder: Path, manifest: Manifest) -> bool:
    """Whether the unpacked environment holds all that it should: cleaners of /tmp take single old files."""
    try:
        return archive.measure(folder) == (manifest.files, manifest.unpacked)
    except OSError:
        return False


def remove_tree(folder: Path) -> None:
    """Remove an unpacked environment, whose folders are read-only. What cannot be removed is left."""
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)  # noqa: PTH101 (os.walk gives text)
    shutil.rmtree(folder, ignore_errors=True)
