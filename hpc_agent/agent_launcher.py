"""Agent launcher: becomes this program, run from a copy on the node's own disk.

    python -I -S agent_launcher.py ARCHIVE INSTALLED SCRATCH [SCRATCH …] -- [ARGUMENT …]

Run by path with the standard library alone: a start of the installed program asks a shared file system a thousand times
for its modules. ARCHIVE is what ``bundles.agent_archive`` published, ``<sha256>.tar.gz``. INSTALLED is the interpreter
that has this program installed: it is used where no copy can be made. SCRATCH is a node-local folder, or the name of a
variable that may hold one; the first that there is counts.

The copy is unpacked once per node, by one job while others wait for it, under a temporary name that is renamed at the
end. It is kept while a process runs from it, and repaired where a cleaner of /tmp has removed files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator, Sequence

FOLDERS = ".folders"
"""File of a copy with the names of its folders, one a line."""
FOLDER_TIME = 1_000_000_000
"""Unix time of each folder of a complete copy: a file that is removed from it changes that."""
_BLOCK = 1 << 20


def main() -> None:
    archive, installed, *rest = sys.argv[1:]
    end = rest.index("--")
    python, flags = installed, []
    try:
        python = os.path.join(copy_on_node(archive, rest[:end]), "bin", "python")  # noqa: PTH118 - pathlib is 10 ms
        os.stat(python)  # noqa: PTH116 - its interpreter may not be on this node
        # Byte-code that is written into the copy would look like a change of it.
        flags = ["-B"]
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the copy, the task runs
        sys.stderr.write(f"hpc-agent: no copy of the program on this node ({error}): running {installed}\n")
        sys.stderr.flush()
        python = installed
    os.execvp(python, [python, *flags, "-m", "hpc_agent", *rest[end + 1 :]])  # noqa: S606 - no shell is wanted


def copy_on_node(archive: str, scratch: Sequence[str]) -> str:
    """The folder of a complete copy, which is kept until this process ends.

    Raises:
        OSError: there is none, and none can be made here.
        ValueError: the archive is damaged.
    """
    digest = archive.rpartition("/")[2].partition(".")[0]
    folder = f"{_private_folder(_first(scratch))}/agents"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)  # noqa: PTH102
    target = f"{folder}/{digest}"
    used = _lock(f"{target}.used", fcntl.LOCK_SH)
    os.set_inheritable(used, True)
    if not is_untouched(target):
        lock = _lock(f"{target}.lock", fcntl.LOCK_EX)
        try:
            if not is_untouched(target):
                _make(archive, digest, target)
        finally:
            os.close(lock)
    return target


def _first(scratch: Sequence[str]) -> str:
    found = (name if name.startswith("/") else os.environ.get(name) for name in scratch)
    return next(filter(None, found), "/tmp")  # noqa: S108


def _private_folder(scratch: str) -> str:
    """As ``file_records.user_scratch_dir``: what runs from it must be our own."""
    folder = f"{scratch}/hpc-agent-{os.getuid()}"
    umask = os.umask(0o022)  # the task gets its own
    try:
        os.makedirs(scratch, exist_ok=True)  # noqa: PTH103
    finally:
        os.umask(umask)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)  # noqa: PTH102
    status, above = os.lstat(folder), os.stat(scratch)  # noqa: PTH116
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
    if not is_ours or (above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX):
        raise PermissionError(errno.EACCES, "another user could write to it", folder)
    return folder


def _lock(path: str, kind: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, kind)
    return descriptor


def is_untouched(target: str) -> bool:
    """Whether a complete copy has lost nothing."""
    try:
        with open(f"{target}/{FOLDERS}", encoding="utf-8") as file:  # noqa: PTH123
            folders = file.read().splitlines()
        return bool(folders) and all(os.stat(f"{target}/{name}").st_mtime == FOLDER_TIME for name in folders)  # noqa: PTH116
    except OSError:
        return False


def _make(archive: str, digest: str, target: str) -> None:
    """Unpack the archive, or bring back what is missing: in place, for other jobs may run from the rest."""
    data = _content(archive, digest)
    if os.path.exists(target):  # noqa: PTH110
        _unpack(data, target)
        return
    _remove_others(target)
    part = f"{target}.{os.getpid()}.part"
    os.mkdir(part, 0o700)  # noqa: PTH102
    try:
        _unpack(data, part)
        os.rename(part, target)  # noqa: PTH104
    except BaseException:
        _remove(part)
        raise


def _content(archive: str, digest: str) -> bytes:
    """In large blocks: a file server is asked once for each."""
    import hashlib  # only for the first job on a node

    with open(archive, "rb", buffering=0) as file:  # noqa: PTH123
        data = b"".join(iter(lambda: file.read(_BLOCK), b""))
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{archive} is damaged")
    return data


def _unpack(data: bytes, root: str) -> None:
    """Files that are there with their sizes stay as they are."""
    import io
    import tarfile

    folders = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        for member in tar:
            path = os.path.normpath(f"{root}/{member.name}")
            if path != root and not path.startswith(f"{root}/"):
                raise ValueError(f"the archive has a file outside of its folder: {member.name}")
            if member.isdir():
                os.makedirs(path, mode=0o700, exist_ok=True)  # noqa: PTH103
                folders.append(path)
            elif member.issym():
                if not os.path.lexists(path):
                    os.symlink(member.linkname, path)  # noqa: PTH211
            elif _size(path) != member.size:
                content = tar.extractfile(member)
                assert content is not None, "a regular file"
                _write(path, content.read(), member.mode & 0o700)
    for path in folders:
        os.utime(path, (FOLDER_TIME, FOLDER_TIME))


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return -1


def _write(path: str, content: bytes, mode: int) -> None:
    draft = f"{path}.{os.getpid()}.new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123
        file.write(content)
    os.replace(draft, path)  # noqa: PTH105


def _remove_others(target: str) -> None:
    """Copies that no process uses, and what was left by jobs that were killed while they unpacked or removed one."""
    folder, _, own = target.rpartition("/")
    for name in os.listdir(folder):  # noqa: PTH208
        path, key = f"{folder}/{name}", name.partition(".")[0]
        if not os.path.isdir(path):  # noqa: PTH112
            continue
        if key == own:  # we hold its lock
            _remove(path)
            continue
        with _unheld(f"{folder}/{key}.lock") as no_one_unpacks, _unheld(f"{folder}/{key}.used") as no_one_runs:
            if no_one_unpacks and no_one_runs:
                # Renamed first: a job that starts now must not find a part of it.
                removed = f"{folder}/{key}.{os.getpid()}.part"
                os.rename(path, removed)  # noqa: PTH104
                _remove(removed)


@contextlib.contextmanager
def _unheld(lock: str) -> Iterator[bool]:
    """Whether no process has the lock, and none gets it while this lasts."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = True
    except BlockingIOError:
        is_ours = False
    try:
        yield is_ours
    finally:
        os.close(descriptor)


def _remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
