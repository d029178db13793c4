"""An environment as a squashfs image, mounted where it lies instead of unpacked (``hpc.envs.mount``).

Nothing is copied to the node: good for very large environments that a job reads little of, and for nodes without
space. Each job mounts for itself: the mount's own process ends with the job that started it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from pathlib import Path

from hpc_agent import file_records
from hpc_agent.errors import ProcessError
from hpc_agent.process import programs

_MOUNT = ("squashfuse_ll", "squashfuse")
"""The first is the faster: it speaks FUSE's low-level protocol."""
_UNMOUNT = (("fusermount3", "-u", "-z"), ("fusermount", "-u", "-z"), ("umount", "-l"))
_MAGIC = b"hsqs"


def can_make() -> bool:
    return shutil.which("mksquashfs") is not None


def make(folder: Path, image: Path) -> None:
    """Write ``folder``'s content to the new file ``image``.

    Raises:
        ProcessError: mksquashfs failed, as on a full disk.
    """
    argv = ["mksquashfs", str(folder), str(image), "-comp", "zstd", "-all-root", "-noappend", "-no-progress", "-quiet"]
    completed = programs.run(argv, timeout=3600)
    if not completed.ok:
        raise ProcessError(f"mksquashfs failed: {completed.last_words}")
    descriptor = os.open(image, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_complete(image: Path) -> bool:
    """Whether the image is as long as its superblock requires; squashfs checks its blocks itself."""
    try:
        with image.open("rb") as file:
            head = file.read(48)
        return head[:4] == _MAGIC and image.stat().st_size >= int(struct.unpack_from("<Q", head, 40)[0])
    except (OSError, struct.error):
        return False


def mount(image: Path, folder: Path) -> Path | None:
    """Mount ``image`` below ``folder``, a local folder of this user's; None where this machine cannot.

    Call ``unmount`` at the end.
    """
    program = next(filter(None, map(shutil.which, _MOUNT)), None)
    if program is None or not is_complete(image):
        return None
    _remove_stale(folder)
    point = file_records.ensure_directory(folder / f"{image.parent.name}.{os.getpid()}")
    try:
        completed = programs.run([program, "-o", "ro,nosuid,nodev", str(image), str(point)], timeout=60)
    except ProcessError:
        completed = None
    if completed is None or not completed.ok or not os.path.ismount(point):
        unmount(point)
        return None
    return point


def unmount(point: Path) -> None:
    """Undo ``mount``, at once or as soon as it is no longer in use."""
    if os.path.ismount(point) or not _is_reachable(point):
        for argv in _UNMOUNT:
            with contextlib.suppress(ProcessError):
                if programs.run([*argv, str(point)], timeout=30).ok:
                    break
    with contextlib.suppress(OSError):
        point.rmdir()


def _is_reachable(point: Path) -> bool:
    """False for a mount whose process is gone: "transport endpoint is not connected"."""
    try:
        point.stat()
    except OSError:
        return False
    return True


def _remove_stale(folder: Path) -> None:
    """Mounts of jobs that were killed."""
    with contextlib.suppress(FileNotFoundError):
        for point in folder.iterdir():
            if not Path(f"/proc/{point.name.rpartition('.')[2]}").exists():
                unmount(point)
