"""A folder as one file: tar, compressed with zstd, written and read in large blocks."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpc_agent import process

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 1 << 20
"""An NFS server answers 137 requests of this size for 140 MB, but 963 of 128 KiB (performance.md section 3)."""

_LEVEL = 3


@dataclass(frozen=True)
class Packed:
    """``size`` of the archive in bytes, ``sha256`` of it in hexadecimal digits; of the folder ``files`` of all kinds
    but folders, and ``unpacked``, the bytes in them."""

    size: int
    sha256: str
    files: int
    unpacked: int


class ArchiveError(Exception):
    """The archive cannot be read to its end: cut off or damaged."""


def pack(folder: Path, archive: Path) -> Packed:
    """Write ``folder``'s content to ``archive``, down to the disk.

    Raises:
        OSError: the disk is full.
        ProcessError: tar failed.
    """
    files, unpacked = measure(folder)
    digest = hashlib.sha256()
    size = 0
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _LEVEL,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    # Nobody may write to an unpacked environment: several jobs share it.
    argv = ["tar", "--create", "--file=-", f"--directory={folder}", "--mode=u=rwX,go=rX,a-w", "--sort=name", "."]
    with archive.open("xb") as target:
        with process.reading_from(argv, timeout=60) as tar:
            while block := tar.read(BLOCK):
                size += _put(target.write, digest, compressor.compress(block))
        size += _put(target.write, digest, compressor.flush())
        target.flush()
        os.fsync(target.fileno())
    return Packed(size, digest.hexdigest(), files, unpacked)


def _put(write, digest, data: bytes) -> int:  # type: ignore[no-untyped-def]
    write(data)
    digest.update(data)
    return len(data)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack into the existing empty ``folder``.

    Raises:
        ArchiveError: the archive is cut off or damaged.
        ProcessError: tar failed, as on a full disk.
        OSError: the archive cannot be opened.
    """
    argv = ["tar", "--extract", "--file=-", f"--directory={folder}", "--preserve-permissions"]
    with process.writing_to(argv, timeout=600) as tar:
        for block in _decompressed(archive):
            tar.write(block)


def _decompressed(archive: Path) -> Iterator[bytes]:
    decompressor = zstd.ZstdDecompressor()
    with archive.open("rb", buffering=0) as source:
        while not decompressor.eof:
            data = source.read(BLOCK) if decompressor.needs_input else b""
            if decompressor.needs_input and not data:
                raise ArchiveError(f"{archive} ends too early")
            try:
                block = decompressor.decompress(data, BLOCK)
            except zstd.ZstdError as error:
                raise ArchiveError(f"{archive} is damaged: {error}") from error
            if block:
                yield block


def measure(folder: Path) -> tuple[int, int]:
    """How many files of all kinds but folders are below ``folder``, and their bytes."""
    count = size = 0
    pending = [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    count += 1
                    size += entry.stat(follow_symlinks=False).st_size
    return count, size


def sha256_of(archive: Path) -> str:
    digest = hashlib.sha256()
    with archive.open("rb", buffering=0) as source:
        while block := source.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
