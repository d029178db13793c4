"""A folder as one file: tar, compressed with zstd, written and read in large blocks.

The tar program does the files (Python's tarfile takes 2.8 s for the 449 MB that tar unpacks in 0.4 s); zstd is a
library, for few nodes have the program. Both at once take 0.55 s, less than ``zstd -d | tar -x`` with its small pipe.
"""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from hpc_agent.cancellation import in_background
from hpc_agent.errors import ProcessError
from hpc_agent.process import programs

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    import tarfile

BLOCK = 1 << 20
"""An NFS server answers 137 requests of this size for 140 MB, but 963 of 128 KiB.

See docs/internals/performance.md#shared-file-systems.
"""
_CHUNK = 1 << 19
"""Bytes handed to tar at a time."""
_AHEAD = 4
"""Pieces that wait for tar, which has more to do for some than for others."""
_LEVEL = 3
"""125 MB in 1.2 s on two cores; level 9 makes 108 MB in 4 s. Reading takes the same time for both."""
_WORKERS = 4
_TAR_FILES_CHANGED = 1
"""tar's exit code where it read all, and some file was not the same before and after (``tar --help``, exit status)."""


class PackedArchive(msgspec.Struct, frozen=True):
    """Size of an archive in bytes, and its SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


class ArchiveError(Exception):
    """The archive cannot be read to its end: cut off or damaged."""


def pack(folder: Path, archive: Path) -> PackedArchive:
    """Write ``folder``'s content to the new file ``archive``, down to the disk.

    Raises:
        OSError: the disk is full.
        ProcessError: tar failed, or a file was written to while it was packed.
    """
    # An unpacked environment is read-only: several jobs share it.
    argv = ["tar", "--create", "--file=-", f"--directory={folder}", "--mode=u=rwX,go=rX,a-w", "--sort=name"]
    argv += ["--format=gnu", "--owner=0", "--group=0", "--numeric-owner", "--blocking-factor=2048", "."]
    with archive.open("xb") as target:
        writer = _Writer(target)
        changed = _compress_from_tar(writer, argv)
        packed = writer.finish()
        os.fsync(target.fileno())
    # Another build that links a file of the installer's cache changes its number of links, and nothing else.
    if changed and not has_content_of(archive, folder):
        raise changed
    return packed


class _Writer:
    """Compressing writer with the size and SHA-256 of what it wrote."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._compressor = zstd.ZstdCompressor(options=_options())
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        self._emit(self._compressor.compress(data))

    def finish(self) -> PackedArchive:
        self._emit(self._compressor.flush())
        self._target.flush()
        return PackedArchive(self._size, self._digest.hexdigest())

    def _emit(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += self._target.write(data)


def _compress_from_tar(writer: _Writer, argv: Sequence[str]) -> ProcessError | None:
    """Compress tar's output; returns its error if it read everything but some file changed meanwhile.

    Raises:
        OSError, ProcessError: as ``pack``.
    """
    try:
        with programs.reading_from(argv, timeout=60) as tar:
            while block := tar.read(BLOCK):
                writer.write(block)
    except ProcessError as error:
        if error.exit_code == _TAR_FILES_CHANGED:
            return error
        raise
    return None


def has_content_of(archive: Path, folder: Path) -> bool:
    """Whether ``archive`` has all that is in ``folder``, byte for byte, and nothing else."""
    import tarfile

    expected = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    try:
        with (
            closing(read(archive, None)) as chunks,
            tarfile.open(fileobj=_Stream(chunks), mode="r|", bufsize=BLOCK) as tar,
        ):
            for member in tar:
                name = os.path.normpath(member.name)
                if not _is_same(tar, member, folder, folder / name):
                    return False
                expected.discard(name)
    except (tarfile.TarError, ArchiveError, OSError):
        return False
    return not expected


def _is_same(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: Path) -> bool:
    if member.issym():
        return path.is_symlink() and str(path.readlink()) == member.linkname
    if path.is_symlink():
        return False
    if member.isdir():
        return path.is_dir()
    if member.islnk():
        return path.samefile(folder / member.linkname)
    packed = tar.extractfile(member)
    if packed is None:
        return False
    with packed, path.open("rb") as file:
        while (block := file.read(BLOCK)) == (ours := packed.read(BLOCK)) and block:
            pass
    return block == ours


def _options() -> dict[int, int]:
    """With a checksum: reading then proves that all is there and right."""
    parameter = zstd.CompressionParameter
    workers = min(_WORKERS, len(os.sched_getaffinity(0)))
    return {parameter.compression_level: _LEVEL, parameter.checksum_flag: 1, parameter.nb_workers: workers}


def unpack(archive: Path, folder: Path, sha256: str | None = None, *, only_missing: bool = False) -> None:
    """Unpack into the existing ``folder``; with ``only_missing`` files that are there stay as they are.
    ``sha256``: what it must be, where that is known.

    Raises:
        ArchiveError: the archive is cut off, damaged, or another than the one with this ``sha256``; what was unpacked
            until then is there.
        ProcessError: tar failed, as on a full disk.
        OSError: the archive cannot be opened, or the disk is full.
    """
    if shutil.which("tar") is None:
        _unpack_without_tar(archive, folder, sha256, only_missing)
        return
    argv = ["tar", "--extract", "--file=-", f"--directory={folder}", "--preserve-permissions", "--no-same-owner"]
    argv += ["--blocking-factor=2048", *(["--skip-old-files"] if only_missing else [])]
    with (
        closing(read(archive, sha256)) as chunks,
        programs.writing_to(argv, timeout=600) as tar,
        _made_ahead(chunks) as pieces,
    ):
        for piece in pieces:
            tar.write(piece)


@contextmanager
def _made_ahead(chunks: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """The same pieces, made by another thread while those before are used; its error comes after the last of them."""
    made: queue.Queue[bytes] = queue.Queue(_AHEAD)
    has_left = threading.Event()

    def make() -> None:
        try:
            for chunk in chunks:
                made.put(chunk)
                if has_left.is_set():
                    return
        finally:
            made.put(b"")

    maker = in_background(make, "decompression")

    def pieces() -> Iterator[bytes]:
        yield from iter(made.get, b"")
        maker.result()

    try:
        yield pieces()
    finally:
        has_left.set()
        while not maker.done():
            with suppress(queue.Empty):
                made.get(timeout=0.05)


def _unpack_without_tar(archive: Path, folder: Path, sha256: str | None, only_missing: bool) -> None:
    import tarfile

    if not hasattr(tarfile, "tar_filter"):
        raise ArchiveError(f"{archive} cannot be unpacked: this machine has no tar program, and its Python is too old")
    try:
        with (
            closing(read(archive, sha256)) as chunks,
            tarfile.open(fileobj=_Stream(chunks), mode="r|", bufsize=BLOCK) as tar,
        ):
            members = (m for m in tar if not (only_missing and not m.isdir() and os.path.lexists(folder / m.name)))
            tar.extractall(folder, members, filter=_MemberFilter())  # noqa: S202 - the guard checks each member
            for _ in chunks:
                pass  # the checksum covers the rest too
    except (tarfile.TarError, KeyError) as error:
        raise ArchiveError(f"{archive} is damaged: {error}") from error


class _MemberFilter:
    """Python's own rules for archives, and hard links only to files of the same archive: those tarfile follows
    out of the folder in some versions."""

    def __init__(self) -> None:
        self._unpacked: set[str] = set()

    def __call__(self, member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
        import tarfile

        member = tarfile.tar_filter(member, folder)
        if member.islnk() and os.path.normpath(member.linkname) not in self._unpacked:
            raise tarfile.LinkOutsideDestinationError(member, member.linkname)
        if member.isreg():
            self._unpacked.add(os.path.normpath(member.name))
        return member


class _Stream(RawIOBase):
    """Chunks as a file with ``read``, which is all that tarfile needs."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._pieces = chunks
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        parts = [self._rest]
        length = len(self._rest)
        while length < size and (chunk := next(self._pieces, b"")):
            parts.append(chunk)
            length += len(chunk)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def read(archive: Path, sha256: str | None) -> Generator[bytes, None, None]:
    """The tar inside, in pieces; after the last one it is known to be the archive with this ``sha256``, if any.

    Raises:
        ArchiveError: the archive is cut off, damaged, or another.
        OSError: it cannot be read.
    """
    decompressor = zstd.ZstdDecompressor()
    digest = hashlib.sha256()
    with archive.open("rb", buffering=0) as source:
        while not decompressor.eof:
            data = source.read(BLOCK) if decompressor.needs_input else b""
            digest.update(data)
            if decompressor.needs_input and not data:
                raise ArchiveError(f"{archive} ends too early")
            try:
                chunk = decompressor.decompress(data, _CHUNK)
            except zstd.ZstdError as error:
                raise ArchiveError(f"{archive} is damaged: {error}") from error
            if chunk:
                yield chunk
        while data := source.read(BLOCK):
            digest.update(data)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise ArchiveError(f"{archive} is not the archive that its manifest describes: its checksum is another")


def sha256_of(archive: Path) -> str:
    digest = hashlib.sha256()
    with archive.open("rb", buffering=0) as source:
        while block := source.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
