"""How much the files of the server may take: one of them, and all together."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.server.api_fault import ApiFault
from hpc_agent.wire.error_kinds import FILE_TOO_LARGE, STORAGE_FULL

MIB = 1024 * 1024
_KEPT_FREE = 256 * MIB
"""Of the disk, for the database."""
_DISK_LOOKED_AT_EVERY = 64 * MIB


@dataclass(frozen=True)
class UploadLimits:
    """In MiB; None: as much as the disk holds."""

    file: int
    storage: int | None = None


class Quota:
    """Counts the bytes of the files that are stored or on their way. Thread-safe."""

    def __init__(self, folder: Path, limits: UploadLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._lock = threading.Lock()
        self._used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    @contextmanager
    def incoming(self) -> Iterator[UploadStream]:
        """A file on its way: what it took is given back unless it is kept."""
        incoming = UploadStream(self, self._limits)
        try:
            yield incoming
        finally:
            self.give_back(incoming.size)

    def take(self, size: int) -> None:
        """
        Raises:
            Fault: 507, all files together would be larger than they may be.
        """
        most = self._limits.storage
        with self._lock:
            if most is not None and self._used + size > most * MIB:
                raise ApiFault(
                    STORAGE_FULL,
                    f"all files together may take {most} MiB (hpc.server.max_storage_mb); delete some, or raise it",
                )
            self._used += size

    def give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size

    def check_disk(self) -> None:
        """
        Raises:
            Fault: 507, the disk is nearly full.
        """
        if shutil.disk_usage(self._folder).free < _KEPT_FREE:
            raise ApiFault(
                STORAGE_FULL, f"the disk of the server's data folder has less than {_KEPT_FREE // MIB} MiB left"
            )


class UploadStream:
    """The size of one file that is on its way."""

    def __init__(self, quota: Quota, limits: UploadLimits) -> None:
        self._quota = quota
        self._limits = limits
        self._looked = 0
        self.size = 0

    def grow(self, size: int) -> None:
        """
        Raises:
            Fault: 413 or 507, it may not be so large.
        """
        if self.size + size > self._limits.file * MIB:
            raise ApiFault(FILE_TOO_LARGE, f"a file may have {self._limits.file} MiB (hpc.server.max_upload_mb)")
        self._quota.take(size)
        self.size += size
        if not self._looked or self.size - self._looked > _DISK_LOOKED_AT_EVERY:
            self._quota.check_disk()
            self._looked = self.size

    def keep(self, replaced: int) -> None:
        """It is stored, in place of a file of so many bytes."""
        self.size = replaced
