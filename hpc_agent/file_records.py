"""Files on shared file systems: written under a temporary name, fsynced, renamed; looked for by listing the parent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import TypeVar

import msgspec

from hpc_agent.errors import ConfigError, HpcAgentError
from hpc_agent.struct_types import decodable

T = TypeVar("T")


class CorruptFileError(HpcAgentError):
    """A record of ours cannot be read."""


class Durability(Enum):
    """What of a write survives a power cut. The death of a process loses nothing in any case."""

    NEW = "new"
    """The new content."""
    EITHER = "either"
    """The new content or the old: for what is found out again from the old."""
    NONE = "none"
    """Nothing, or a part of it: for what is made again before it is used."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, durability: Durability = Durability.NEW) -> None:
    """Make ``path`` hold ``data``: readers see the old content or the new, a crash leaves one of the two.

    Raises:
        OSError: it was not written; its ``filename`` is the path, also where a full disk refused.
    """
    temporary, descriptor = _write_temporary(path, data, mode, sync=durability is not Durability.NONE)
    with _named(path, temporary):
        os.close(descriptor)
        temporary.rename(path)
    if durability is Durability.NEW:
        fsync_directory(path.parent)


def open_atomic(path: Path, data: bytes, *, mode: int) -> int:
    """As ``write_atomic``; returns a descriptor of the new file, for more to be written behind ``data``.

    Raises:
        OSError: as ``write_atomic``.
    """
    temporary, descriptor = _write_temporary(path, data, mode)
    try:
        with _named(path, temporary):
            temporary.rename(path)
        fsync_directory(path.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write_temporary(path: Path, data: bytes, mode: int, *, sync: bool = True) -> tuple[Path, int]:
    """A new file next to ``path`` with ``data`` in it, on disk if ``sync``, and its descriptor."""
    temporary = draft_of(path)
    with _named(path, temporary):
        return temporary, write_draft(temporary, data, mode, sync=sync)


@contextlib.contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """On an error inside remove the temporary file, and name the path that was to be written."""
    try:
        yield
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def draft_of(path: Path) -> Path:
    """A new name next to ``path``, for what is to become it."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def write_draft(draft: Path, data: bytes, mode: int, *, sync: bool = True) -> int:
    """A new file with ``data`` in it, on disk if ``sync``; its descriptor."""
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        _fill(descriptor, data, sync=sync)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _fill(descriptor: int, data: bytes, *, sync: bool) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    if sync:
        os.fsync(descriptor)


def fsync_directory(path: Path) -> None:
    """Make renames and new names in ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_new(source: Path, target: Path) -> bool:
    """Give a finished folder its final name, at once and whole; False if the name is taken, which leaves both alone.

    rename(2) replaces an empty folder only, and gives ENOTEMPTY or EEXIST for any other.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    fsync_directory(target.parent)
    return True


def exists_uncached(path: Path) -> bool:
    """Whether ``path`` exists, asked in the way that NFS answers truly at once.

    A name that an NFS client once missed stays missing to ``exists`` for 30 s; listing the parent shows it at once
    (docs/internals/performance.md#nfs-visibility).
    """
    try:
        with os.scandir(path.parent) as entries:
            return any(entry.name == path.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False


def write_record(path: Path, record: object, *, mode: int = 0o644, durability: Durability = Durability.NEW) -> None:
    """Write a dataclass or msgspec struct as JSON, atomically."""
    write_atomic(path, encoded_record(record), mode=mode, durability=durability)


def encoded_record(record: object) -> bytes:
    """What a record's file holds."""
    return _encoded(record) + b"\n"


def _encoded(record: object) -> bytes:
    """As JSON. The bytes of a path that is not UTF-8 are lone surrogates in Python, which only ``json`` writes (and
    reads) as they are."""
    try:
        return msgspec.json.format(msgspec.json.encode(record), indent=2)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(record), indent=2).encode("ascii")


def _decoded(data: bytes, type: Callable[..., T]) -> T:
    try:
        return msgspec.json.decode(data, type=decodable(type))  # type: ignore[no-any-return]
    except msgspec.DecodeError:
        if b"\\ud" not in data.lower():
            raise
    try:
        return msgspec.convert(json.loads(data), decodable(type))  # type: ignore[no-any-return]
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from error


def read_record(path: Path, type: Callable[..., T]) -> T | None:
    """The record at ``path``, or None when there is none.

    Raises:
        CorruptFileError: it is there but cannot be understood.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return _decoded(data, type)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CorruptFileError(f"{path} cannot be read: {error}") from error


def write_first(path: Path, record: object, *, mode: int = 0o644) -> bool:
    """Write a record unless one is there; False if there is. Of all that try at once, on any machine, one succeeds.

    By a hard link to a finished file: atomic on NFS too, and never half written.
    """
    draft = draft_of(path)
    try:
        # Only the folder with the final name in it has to be synced.
        os.close(write_draft(draft, encoded_record(record), mode))
        is_first = link_first(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        if error.filename is None:
            error.filename = str(path)
        raise
    if is_first:
        fsync_directory(path.parent)
    return is_first


def link_first(draft: Path, path: Path) -> bool:
    """Give a finished file its name unless the name is taken, and remove the draft; False if it is."""
    try:
        os.link(draft, path)
    except FileExistsError:
        # On NFS a link that was made may be answered so, when the first answer got lost.
        return draft.stat().st_nlink > 1
    finally:
        draft.unlink(missing_ok=True)
    return True


def share_like_parent(path: Path) -> None:
    """Give a new file or folder the access that its folder grants: a group's cache stays readable to the group
    whatever the umask of the user who adds to it, and a private one stays private."""
    mode = stat.S_IMODE(path.parent.stat().st_mode)
    path.chmod(mode | 0o700 if path.is_dir() else (mode & 0o666) | 0o600)


def ensure_shared_directory(path: Path) -> Path:
    """As ``ensure_directory``, with the access that the first existing parent grants."""
    if not path.is_dir():
        ensure_shared_directory(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            share_like_parent(path)
    return path


def ensure_directory(path: Path, *, mode: int = 0o755) -> Path:
    """Create ``path`` and its parents where missing, and return it.

    All that is made has this mode, less what the umask takes away. (``parents=True`` of the library gives parents all
    that the umask leaves: with 002 a whole group could put something else in the place of a private folder.)
    """
    if not path.is_dir():
        if path.parent != path:
            ensure_directory(path.parent, mode=mode)
        path.mkdir(mode=mode, exist_ok=True)
    return path


def remove_tree(folder: Path) -> None:
    """Remove a folder whose folders may be read-only. What cannot be removed is left."""
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)  # noqa: PTH101 (os.walk gives text)
    shutil.rmtree(folder, ignore_errors=True)


def user_scratch_dir(scratch: Path) -> Path | None:
    """A folder of this user's in ``scratch``, or None if there can be none that no other user can write to.

    In a shared /tmp another user may have made the name first: what runs from it must be our own.
    """
    folder = scratch / f"hpc-agent-{os.getuid()}"
    try:
        ensure_directory(scratch)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
    return folder if private and _keeps_names(scratch) and os.access(folder, os.W_OK) else None


def _keeps_names(folder: Path) -> bool:
    """Whether no user can put something else in the place of what another one has there."""
    mode = folder.stat().st_mode
    return not mode & stat.S_IWOTH or bool(mode & stat.S_ISVTX)


def private_folder(scratch: Path) -> Path:
    """As ``user_scratch_dir``.

    Raises:
        ConfigError: there is none.
    """
    folder = user_scratch_dir(scratch)
    if folder is None:
        raise ConfigError(
            f"cannot create a private folder in {scratch}: it is not writable, or every user may rename what is in it "
            f"(`chmod +t {scratch}` ends that), or another user has taken the name hpc-agent-{os.getuid()} there; "
            "name another local folder with hpc.scratch_dir"
        )
    return folder
