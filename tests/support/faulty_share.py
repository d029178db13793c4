"""A shared file system that stalls, or loses what was open for appending as NFS does after its lease ran out.

A pass-through file system in user space (FUSE), in a process of its own:

    python faulty_share.py FOLDER MOUNT CONTROL

While ``CONTROL/stalled`` exists, no call is answered. When ``CONTROL/lost`` is made, whatever was opened with O_APPEND
before answers each write with EIO from then on, as a Linux NFS client does.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from capabilities import missing

_STATUS = ("st_mode", "st_ino", "st_uid", "st_gid", "st_size", "st_nlink", "st_mtime_ns", "st_ctime_ns", "st_atime_ns")


class Share:
    """Mounted at ``path``."""

    def __init__(self, path: Path, control: Path) -> None:
        self.path = path
        self._control = control

    def stall(self) -> None:
        (self._control / "stalled").touch()

    def answer_again(self) -> None:
        (self._control / "stalled").unlink(missing_ok=True)

    def lose_what_is_open(self) -> None:
        (self._control / "lost").touch()

    def fill_up(self, name: str) -> None:
        """Files of this name get no room any more."""
        (self._control / "full").write_text(name, encoding="utf-8")

    def make_room(self) -> None:
        (self._control / "full").unlink()

    def has_refused(self) -> bool:
        return (self._control / "refused").exists()


@contextmanager
def mounted(folder: Path) -> Iterator[Share]:
    """A share below ``folder``; the test is skipped where FUSE cannot be had."""
    if not os.access("/dev/fuse", os.W_OK):
        missing("fuse", "there is no /dev/fuse to make a share that stalls")
    if importlib.util.find_spec("mfusepy") is None:
        missing("fuse", "mfusepy is not installed")
    paths = [folder / name for name in ("behind", "share", "control")]
    for path in paths:
        path.mkdir(parents=True)
    with (folder / "share.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, __file__, *map(str, paths)], stdout=log, stderr=log)
    share = Share(paths[1], paths[2])
    try:
        deadline = time.monotonic() + 20
        while not paths[1].is_mount():
            if server.poll() is not None or time.monotonic() > deadline:
                missing("fuse", f"no FUSE here: {(folder / 'share.log').read_text(encoding='utf-8')[-300:]}")
            time.sleep(0.02)
        yield share
    finally:
        share.answer_again()
        subprocess.run(["umount", "--lazy", str(paths[1])], check=False, capture_output=True)
        server.kill()
        server.wait()


def _gated(operation: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(operation)
    def gated(self: Any, *arguments: Any, **named: Any) -> Any:
        self.gate()
        return operation(self, *arguments, **named)

    return gated


def _serve(folder: str, mount: str, control: str) -> None:
    import mfusepy

    class PassThrough(mfusepy.Operations):  # type: ignore[misc] # it publishes no types
        use_ns = True

        def __init__(self) -> None:
            self.appending: set[int] = set()
            self.lost: set[int] = set()
            self.was_lost = False

        def gate(self) -> None:
            while os.path.exists(f"{control}/stalled"):
                time.sleep(0.02)
            if os.path.exists(f"{control}/lost") and not self.was_lost:
                self.was_lost = True
                self.lost = set(self.appending)

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            found = os.lstat(folder + path)
            return {name.removesuffix("_ns"): getattr(found, name) for name in _STATUS}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *os.listdir(folder + path)]

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            raise mfusepy.FuseOSError(errno.ENOSYS)  # it does not tell the flags: mknod and open are called instead

        def mknod(self, path: str, mode: int, dev: int) -> None:
            os.mknod(folder + path, mode, dev)

        def open(self, path: str, flags: int) -> int:
            return self._opened(os.open(folder + path, flags & ~os.O_APPEND), appends=bool(flags & os.O_APPEND))

        def _opened(self, handle: int, *, appends: bool) -> int:
            if appends:
                self.appending.add(handle)
            return handle

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            if fh in self.lost:
                raise mfusepy.FuseOSError(errno.EIO)
            if os.path.exists(f"{control}/full") and path.endswith(Path(control, "full").read_text(encoding="utf-8")):
                Path(control, "refused").touch()
                raise mfusepy.FuseOSError(errno.ENOSPC)
            return os.pwrite(fh, data, offset)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(fh, size, offset)

        def release(self, path: str, fh: int) -> None:
            self.appending.discard(fh)
            self.lost.discard(fh)
            os.close(fh)

        def fsync(self, path: str, datasync: int, fh: int) -> None:
            os.fsync(fh)

        def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
            pass

        def truncate(self, path: str, length: int, fh: int | None = None) -> None:
            os.truncate(folder + path, length)

        def mkdir(self, path: str, mode: int) -> None:
            os.mkdir(folder + path, mode)

        def rmdir(self, path: str) -> None:
            os.rmdir(folder + path)

        def unlink(self, path: str) -> None:
            os.unlink(folder + path)

        def rename(self, old: str, new: str) -> None:
            os.rename(folder + old, folder + new)

        def link(self, target: str, source: str) -> None:
            os.link(folder + source, folder + target)

        def symlink(self, target: str, source: str) -> None:
            os.symlink(source, folder + target)

        def readlink(self, path: str) -> str:
            return os.readlink(folder + path)

        def chmod(self, path: str, mode: int) -> None:
            os.chmod(folder + path, mode)

        def chown(self, path: str, uid: int, gid: int) -> None:
            os.chown(folder + path, uid, gid)

        def utimens(self, path: str, times: Any = None) -> None:
            os.utime(folder + path, ns=times)

        def statfs(self, path: str) -> dict[str, int]:
            found = os.statvfs(folder + path)
            return {name: getattr(found, name) for name in ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize")}

    for name, operation in list(vars(PassThrough).items()):
        if callable(operation) and not name.startswith("_") and name != "gate":
            setattr(PassThrough, name, _gated(operation))
    # Nothing is remembered by the kernel, as if each call went to the server.
    mfusepy.FUSE(PassThrough(), mount, foreground=True, attr_timeout=0, entry_timeout=0, direct_io=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
