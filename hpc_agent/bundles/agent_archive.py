"""This program as one archive, for nodes that run it from a copy on their own disk (``agent_launcher``).

A start of the program reads a thousand files. Where it is installed on a shared file system, each is a question to the
file server; one archive is ten reads, once per node. It is a virtual environment that works wherever it is unpacked:
this package, what it needs, byte-code. The interpreter stays where it is.
"""

from __future__ import annotations

import compileall
import gzip
import hashlib
import importlib.metadata
import json
import os
import py_compile
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import msgspec

import hpc_agent
from hpc_agent import agent_launcher
from hpc_agent.bundles.program import copy_program, program_distributions
from hpc_agent.config.settings import HpcSettings
from hpc_agent.file_records import (
    CorruptFileError,
    ensure_directory,
    exists_uncached,
    read_record,
    write_atomic,
    write_record,
)
from hpc_agent.logs import EventLog

log = EventLog("agent_archive")

_FORMAT = 1
"""Another number for another layout of the archive."""


class _Published(msgspec.Struct, frozen=True):
    """``agents/<fingerprint>.json``: the archive that was made of this installation."""

    archive: str


def staged_agent_command(hpc: HpcSettings, *, makes: bool) -> tuple[str, ...]:
    """How a job calls this program from a copy on its node, if the site wants that; empty if not, or if there is no
    archive: then jobs call it where it is installed. ``makes``: make the archive if it is not there."""
    if not hpc.agent_archive or hpc.agent_command:
        return ()
    folder = hpc.root / "agents"
    try:
        archive = publish(folder) if makes else published(folder)
    except (OSError, CorruptFileError) as error:
        log.warning("agent_archive.not_made", folder=folder, error=error)
        return ()
    if archive is None:
        return ()
    return (
        _base_interpreter(),
        *("-I", "-S", agent_launcher.__file__, str(archive), sys.executable),
        *hpc.scratch_places,
        "--",
    )


def published(folder: Path) -> Path | None:
    """The archive of this installation in ``folder``, if it is there.

    Raises:
        OSError, CorruptFileError: its record cannot be read.
    """
    record = read_record(_record(folder), _Published)
    return folder / record.archive if record and exists_uncached(folder / record.archive) else None


def publish(folder: Path) -> Path:
    """The archive of this installation in ``folder``, which no other user may write to; made if it is not there.

    Raises:
        OSError: the folder is full or not writable.
        CorruptFileError: its record cannot be understood.
    """
    ensure_directory(folder, mode=0o700)
    if known := published(folder):
        return known
    data = _packed()
    archive = folder / f"{hashlib.sha256(data).hexdigest()}.tar.gz"
    write_atomic(archive, data, mode=0o600)
    write_record(_record(folder), _Published(archive.name), mode=0o600)
    log.info("agent_archive.made", archive=archive, bytes=len(data))
    return archive


def _record(folder: Path) -> Path:
    return folder / f"{_fingerprint()}.json"


def _fingerprint() -> str:
    """Of what would be packed. Another one for each change of an installation from a working copy."""
    own = Path(hpc_agent.__file__).parent
    sources = [path for path in own.rglob("*") if "__pycache__" not in path.parts]
    files = [(str(path.relative_to(own)), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    versions = [(found.name, found.version) for found in program_distributions()]
    parts = [_FORMAT, sys.version, _base_interpreter(), sorted(versions), sorted(files)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _base_interpreter() -> str:
    """Without a virtual environment around it."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _packed() -> bytes:
    with tempfile.TemporaryDirectory(prefix="hpc-agent-") as name:
        root = Path(name) / "agent"
        packages = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        packages.mkdir(parents=True)
        copy_program(packages / "hpc_agent")
        for distribution in program_distributions():
            _copy(distribution, packages)
        (root / "bin").mkdir()
        (root / "bin" / "python").symlink_to(_base_interpreter())
        home = Path(_base_interpreter()).parent
        (root / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n", encoding="utf-8")
        # Not bound to the time stamps of sources, which the archive does not keep.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(packages, quiet=2, stripdir=str(root), invalidation_mode=mode)
        return archive_of(root)


def _copy(distribution: importlib.metadata.Distribution, packages: Path) -> None:
    """The files of an installed distribution, without programs and byte-code."""
    for file in distribution.files or ():
        source = Path(str(distribution.locate_file(file)))
        is_inside = ".." not in file.parts and not file.is_absolute()
        if is_inside and "__pycache__" not in file.parts and file.suffix != ".pth" and source.is_file():
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copyfile(source, target)


def archive_of(root: Path) -> bytes:
    """A folder as ``agent_launcher`` unpacks it: the same bytes for the same files.

    A list of its folders is added to ``root``.
    """
    paths = sorted(root.rglob("*"))
    folders = [".", *(str(path.relative_to(root)) for path in paths if path.is_dir())]
    (root / agent_launcher.FOLDERS).write_text("\n".join(folders) + "\n", encoding="utf-8")
    target = root.parent / "agent.tar.gz"
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in [root, root / agent_launcher.FOLDERS, *paths]:
            tar.add(path, str(path.relative_to(root)), recursive=False, filter=_anonymous)
    return target.read_bytes()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = agent_launcher.FOLDER_TIME
    return member
