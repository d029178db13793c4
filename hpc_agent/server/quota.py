"""Size limits of uploaded files: one file, and all together."""

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
        """Count a file while it is received; its size is released unless it is kept."""
        incoming = UploadStream(self, self._limits)
        try:
            yield incoming
        finally:
            self.release(incoming.size)

    def take(self, size: int) -> None:
        """
        Raises:
            ApiFault: 507, all files together would exceed their limit.
        """
        most = self._limits.storage
        with self._lock:
            if most is not None and self._used + size > most * MIB:
                raise ApiFault(
                    STORAGE_FULL,
                    f"all files together may take {most} MiB (hpc.server.max_storage_mb); delete some, or raise it",
                )
            self._used += size

    def release(self, size: int) -> None:
        with self._lock:
            self._used -= size

    def check_disk(self) -> None:
        """
        Raises:
            ApiFault: 507, the disk is nearly full.
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
            ApiFault: 413 or 507, a limit is exceeded.
        """
        if self.size + size > self._limits.file * MIB:
            raise ApiFault(FILE_TOO_LARGE, f"a file may have {self._limits.file} MiB (hpc.server.max_upload_mb)")
        self._quota.take(size)
        self.size += size
        if not self._looked or self.size - self._looked > _DISK_LOOKED_AT_EVERY:
            self._quota.check_disk()
            self._looked = self.size

    def keep(self, replaced: int) -> None:
        """The file is stored, in place of one of this many bytes."""
        self.size = replaced
