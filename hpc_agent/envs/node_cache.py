"""Environments unpacked on a node: once per key, shared by all jobs of the user there, and checked before each use.

Cleaners of /tmp remove single old files, so an environment in daily use loses the modules that nothing imports. The
inventory inside each environment detects that. Folders are read-only and keep the times they were packed with; removing
a file changes its folder's time. Checking 1,200 folders takes 5 ms; 12,000 files take 100 ms and are checked only where
a folder's time differs.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hpc_agent import file_lock, file_records
from hpc_agent.envs import archive, conda_prefix
from hpc_agent.envs.shared_cache import Manifest
from hpc_agent.progress import Progress
from hpc_agent.struct_types import decodable

_RESERVED_BYTES = 64 << 20
"""Bytes to leave free for the job, in addition to an unpacked environment's."""
_OVERHEAD_PER_FILE = 2048
"""Bytes that a file takes beyond its content, on average."""


class NodeCache:
    """Unpacked environments below ``folder``, which is on a local disk and belongs to the user.

    The locks are flock(2)'s: the kernel drops those of a killed job.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._envs = folder / "envs"
        self._locks = folder / "locks"

    def obtain(self, manifest: Manifest, source: Path, progress: Progress) -> tuple[Path, bool] | None:
        """The environment's folder, and whether this call unpacked it; None if the disk has too little space.

        One job unpacks, others wait for it. The environment is kept on the node until this process ends.

        Raises:
            ArchiveError: the archive is damaged.
            OSError, ProcessError: this disk is full or broken.
        """
        target = self._envs / manifest.key
        file_records.ensure_directory(self._envs)
        file_records.ensure_directory(self._locks)
        self._mark_in_use(manifest.key)
        if is_untouched(target):
            return target, False
        with self._exclusive(manifest.key):
            if is_untouched(target):
                return target, False
            if target.exists():
                self._repair(manifest, source, target, progress)
                return target, False
            if not self._free_space(manifest, progress):
                return None
            progress(f"Unpacking environment {manifest.key} ({manifest.unpacked / 1e6:.0f} MB) to {target}")
            self._remove_leftovers(manifest.key)
            unpack_to(source, target, manifest.sha256)
        return target, True

    def _mark_in_use(self, key: str) -> None:
        """Keep others from removing the environment; the descriptor is closed by the end of the process."""
        descriptor = os.open(self._locks / f"{key}.used", os.O_RDWR | os.O_CREAT, 0o600)
        file_lock.lock(descriptor, shared=True)

    @contextmanager
    def _exclusive(self, key: str) -> Iterator[None]:
        descriptor = os.open(self._locks / key, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            file_lock.lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _repair(self, manifest: Manifest, source: Path, target: Path, progress: Progress) -> None:
        """Bring back what is missing. In place: other jobs may be running from the rest."""
        gone = missing_files(target)
        if gone != []:
            progress(f"Environment {manifest.key} on this node lacks files (a cleaner of /tmp?): repairing it")
            # Before any of it is written among files that other jobs use.
            if archive.sha256_of(source) != manifest.sha256:
                raise archive.ArchiveError(f"{source} is not the archive that its manifest describes")
            for folder, _, _ in os.walk(target):
                os.chmod(folder, 0o700)  # noqa: PTH101 (os.walk gives text)
            for path in gone or ():
                (target / path).unlink(missing_ok=True)
            archive.unpack(source, target, manifest.sha256, only_missing=True)
            _relocate(target, target)
        restore_folder_times(target)

    def _free_space(self, manifest: Manifest, progress: Progress) -> bool:
        """Whether the environment fits, if need be after removing others that no job uses, the oldest first."""
        needed = manifest.unpacked + manifest.files * _OVERHEAD_PER_FILE + _RESERVED_BYTES
        candidates = sorted(self._envs.iterdir(), key=lambda path: path.lstat().st_ctime)
        while shutil.disk_usage(self._envs).free < needed:
            if not candidates:
                return False
            candidate = candidates.pop(0)
            if candidate.name != manifest.key and not candidate.name.startswith(".") and self._remove_unused(candidate):
                progress(f"Removed environment {candidate.name} from this node to make room")
        return True

    def _remove_unused(self, candidate: Path) -> bool:
        descriptor = os.open(self._locks / f"{candidate.name}.used", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not file_lock.try_lock(descriptor):
                return False
            # Renamed first: a job that starts now must not find a part of it.
            removed = candidate.with_name(f".{candidate.name}.{secrets.token_hex(4)}.old")
            candidate.rename(removed)
            file_records.remove_tree(removed)
            return True
        finally:
            os.close(descriptor)

    def _remove_leftovers(self, key: str) -> None:
        """Remove folders of jobs that were killed while unpacking; the lock is ours, so none is in use."""
        for entry in self._envs.iterdir():
            if entry.name.startswith(f".{key}."):
                file_records.remove_tree(entry)


def unpack_to(source: Path, target: Path, sha256: str) -> None:
    """Unpack next to ``target``, then rename: no job sees a partial environment, or one with another ``sha256``.

    Raises:
        ArchiveError, OSError, ProcessError: as ``archive.unpack``.
        EnvironmentBuildError: the name of ``target`` is too long for it.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    try:
        archive.unpack(source, part, sha256)
        _relocate(part, target)
        file_records.rename_new(part, target)
    finally:
        file_records.remove_tree(part)


def _relocate(root: Path, target: Path) -> None:
    """Where files name the environment's folder, let them name ``target``, and note their sizes."""
    if changed := conda_prefix.relocate(root, target):
        sizes = {**(_read(root / _FILE_SIZES) or {}), **changed}
        conda_prefix.write_in_place(root / _FILE_SIZES, msgspec.json.encode(sizes))


_FOLDER = ".hpc-agent"
_FOLDER_TIMES = f"{_FOLDER}/folders.json"
_FILE_SIZES = f"{_FOLDER}/files.json"
_NANOSECONDS = 1_000_000_000


class ContentSize(msgspec.Struct, frozen=True):
    """Number of files of all kinds but folders, and their bytes."""

    files: int
    bytes: int


def write_inventory(root: Path) -> ContentSize:
    """Write the lists of ``root``'s content into it. Nothing in it may change afterwards."""
    (root / _FOLDER).mkdir()
    for name in (_FOLDER_TIMES, _FILE_SIZES):
        (root / name).touch()
    folders: dict[str, int] = {}
    sizes: dict[str, int] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        folders[folder] = int(os.stat(root / folder).st_mtime)  # noqa: PTH116 (12,000 of them)
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                else:
                    sizes[path] = entry.stat(follow_symlinks=False).st_size
    del sizes[_FOLDER_TIMES], sizes[_FILE_SIZES]
    # Into files that are there: the times of the folders, just written down, stay as they are.
    (root / _FOLDER_TIMES).write_bytes(msgspec.json.encode(folders))
    (root / _FILE_SIZES).write_bytes(msgspec.json.encode(sizes))
    return ContentSize(len(sizes), sum(sizes.values()))


def is_untouched(root: Path) -> bool:
    """Whether no name was added to or taken from any folder of ``root``. False is not yet a proof of damage."""
    folders = _read(root / _FOLDER_TIMES)
    return folders is not None and all(
        _time(os.path.join(root, folder)) == seconds * _NANOSECONDS  # noqa: PTH118
        for folder, seconds in folders.items()
    )


def missing_files(root: Path) -> list[str] | None:
    """The files that are gone or have another size; None if even the lists are gone."""
    sizes = _read(root / _FILE_SIZES)
    if sizes is None or _read(root / _FOLDER_TIMES) is None:
        return None
    return [path for path, size in sizes.items() if _size(os.path.join(root, path)) != size]  # noqa: PTH118


def restore_folder_times(root: Path) -> None:
    """Put the times of the folders back to what they were packed with, when nothing is missing."""
    for folder, seconds in (_read(root / _FOLDER_TIMES) or {}).items():
        os.utime(root / folder, (seconds, seconds))


def _read(path: Path) -> dict[str, int] | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=decodable(dict[str, int]))
    except (OSError, msgspec.DecodeError):
        return None


def _time(path: str) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return -1


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return -1
