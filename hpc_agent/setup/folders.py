"""Folders in which our files could lie: which of them look shared between machines, and how much room they have."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

NETWORK_FILE_SYSTEMS = (
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "fhgfs", "ceph", "cifs", "smb3", "afs", "orangefs", "pvfs2", "panfs"),
    *("wekafs", "quobyte", "vastnfs", "glusterfs", "gfs2", "ocfs2", "dvs", "9p", "fuse.ceph", "fuse.ceph-fuse"),
    *("fuse.glusterfs", "fuse.sshfs", "fuse.juicefs", "fuse.moosefs"),
)
"""Types that several machines can mount at once, as /proc/self/mountinfo names them."""
SHORT_LIVED = ("SCRATCH", "CSCRATCH", "PSCRATCH", "GROUP_SCRATCH")
LONG_LIVED = ("WORK", "WORKDIR", "PROJECT", "GROUP_HOME", "DATA")
"""Variables by which sites name a user's folders. Old files in the first are deleted at many sites."""
_USUAL = ("/scratch", "/work", "/lustre", "/gpfs")
"""Where many sites keep a folder for each user, by name."""


class Folder(msgspec.Struct, frozen=True):
    """A folder of the user's that exists and can be written to."""

    path: Path
    source: str
    """How it was found: ``home``, ``$SCRATCH``, ``/scratch/<user>``."""
    file_system: str
    free_gib: float
    short_lived: bool = False
    """Whether the site may delete old files there."""

    @property
    def shared(self) -> bool:
        """Whether its type can be mounted by several machines. That the nodes do mount it only a job can tell."""
        return self.file_system in NETWORK_FILE_SYSTEMS


def find(environ: Mapping[str, str], home: Path, user: str, mounts: str | None = None) -> tuple[Folder, ...]:
    """The home folder first. ``mounts``: text of /proc/self/mountinfo, read when not given."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace") if mounts is None else mounts
    types = dict(_mounted(text))
    found: dict[Path, Folder] = {}
    for source, path in _candidates(environ, home, user):
        try:
            real = path.resolve()
            if real not in found and real.is_dir() and os.access(real, os.W_OK | os.X_OK):
                free = shutil.disk_usage(real).free / 1024**3
                short = source.strip("$") in SHORT_LIVED or source.startswith("/scratch")
                found[real] = Folder(path, source, _type_of(real, types), round(free, 1), short)
        except OSError:
            continue
    return tuple(found.values())


def file_system_of(path: Path) -> str:
    """Type of the file system that holds ``path``, as the kernel names it; ``unknown`` where it does not tell."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    return _type_of(path.resolve(), dict(_mounted(text)))


def _candidates(environ: Mapping[str, str], home: Path, user: str) -> Iterator[tuple[str, Path]]:
    yield "home", home
    for name in (*LONG_LIVED, *SHORT_LIVED):
        if environ.get(name, "").startswith("/"):
            yield f"${name}", Path(environ[name])
    for folder in _USUAL:
        yield f"{folder}/<user>", Path(folder) / user


def _mounted(text: str) -> Iterator[tuple[Path, str]]:
    """Mount point and type; spaces are written \\040 there."""
    for line in text.splitlines():
        fields, separator, rest = line.partition(" - ")
        if separator and len(fields.split(" ")) > 4 and rest:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split(" ")[4])
            yield Path(point), rest.split(" ")[0]


def _type_of(path: Path, types: Mapping[Path, str]) -> str:
    return next((types[folder] for folder in (path, *path.parents) if folder in types), "unknown")
