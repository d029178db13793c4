"""Environments unpacked on a node: once for each key, shared by all jobs of the user there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_agent import file_records
from hpc_agent.envs import archive, inventory
from hpc_agent.envs.manifest import Manifest

_ROOM = 64 << 20
"""Bytes to leave free beside an unpacked environment: the job wants to write something too."""
_SLACK = 2048
"""Bytes that a file takes beyond its content, on average."""


class NodeCache:
    """Unpacked environments below ``folder``, which is on a local disk and belongs to the user.

    The locks are flock(2)'s: the kernel drops those of a killed job.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._envs = folder / "envs"
        self._locks = folder / "locks"

    def obtain(self, manifest: Manifest, source: Path, progress: Callable[[str], None]) -> tuple[Path, bool] | None:
        """The environment's folder, and whether it had to be unpacked now; None if there is no room for it.

        One job unpacks, others wait for it. The environment is kept on the node until this process ends.

        Raises:
            ArchiveError: the archive is damaged.
            OSError, ProcessError: this disk is full or broken.
        """
        target = self._envs / manifest.key
        file_records.ensure_directory(self._envs)
        file_records.ensure_directory(self._locks)
        self._hold(manifest.key)
        if inventory.is_untouched(target):
            return target, False
        with self._alone(manifest.key):
            if inventory.is_untouched(target):
                return target, False
            if target.exists():
                self._mend(manifest, source, target, progress)
                return target, False
            if not self._make_room(manifest, progress):
                return None
            progress(f"Unpacking environment {manifest.key} ({manifest.unpacked / 1e6:.0f} MB) to {target}")
            self._remove_leftovers(manifest.key)
            unpack_to(source, target, manifest.sha256)
        return target, True

    def _hold(self, key: str) -> None:
        """Keep others from removing the environment; the descriptor is closed by the end of the process."""
        descriptor = os.open(self._locks / f"{key}.used", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        descriptor = os.open(self._locks / key, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _mend(self, manifest: Manifest, source: Path, target: Path, progress: Callable[[str], None]) -> None:
        """Bring back what is missing. In place: other jobs may be running from the rest."""
        missing = inventory.missing(target)
        if missing != []:
            progress(f"Environment {manifest.key} on this node is incomplete, probably cleaned up: mending it")
            # Before anything of it stands among files that other jobs use.
            if archive.sha256_of(source) != manifest.sha256:
                raise archive.ArchiveError(f"{source} is not the archive that its manifest describes")
            for folder, _, _ in os.walk(target):
                os.chmod(folder, 0o700)  # noqa: PTH101 (os.walk gives text)
            for path in missing or ():
                (target / path).unlink(missing_ok=True)
            archive.unpack(source, target, manifest.sha256, only_missing=True)
        inventory.settle(target)

    def _make_room(self, manifest: Manifest, progress: Callable[[str], None]) -> bool:
        """Whether the environment fits, if need be after removing others that no job uses, the oldest first."""
        needed = manifest.unpacked + manifest.files * _SLACK + _ROOM
        others = sorted(self._envs.iterdir(), key=lambda path: path.lstat().st_ctime)
        while shutil.disk_usage(self._envs).free < needed:
            if not others:
                return False
            victim = others.pop(0)
            if victim.name != manifest.key and not victim.name.startswith(".") and self._remove_unused(victim):
                progress(f"Removed environment {victim.name} from this node to make room")
        return True

    def _remove_unused(self, victim: Path) -> bool:
        descriptor = os.open(self._locks / f"{victim.name}.used", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            # Out of sight first: a job that comes now must not find half of it.
            grave = victim.with_name(f".{victim.name}.{secrets.token_hex(4)}.old")
            victim.rename(grave)
            remove_tree(grave)
            return True
        finally:
            os.close(descriptor)

    def _remove_leftovers(self, key: str) -> None:
        """What jobs left that were killed while unpacking; we hold the lock, so nobody is at it."""
        for entry in self._envs.iterdir():
            if entry.name.startswith(f".{key}."):
                remove_tree(entry)


def unpack_to(source: Path, target: Path, sha256: str) -> None:
    """Unpack next to ``target``, then rename: nobody sees half an environment, or another than that with ``sha256``.

    Raises:
        ArchiveError, OSError, ProcessError: as ``archive.unpack``.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    try:
        archive.unpack(source, part, sha256)
        file_records.rename_new(part, target)
    finally:
        remove_tree(part)


def remove_tree(folder: Path) -> None:
    """Remove an unpacked environment, whose folders are read-only. What cannot be removed is left."""
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)  # noqa: PTH101 (os.walk gives text)
    shutil.rmtree(folder, ignore_errors=True)
