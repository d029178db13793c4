"""Checkpoint of a console: what the server has acknowledged, and what is being sent. Kept in a file of its own.

The file holds a line of JSON for each checkpoint, of which the last whole one counts: adding a line costs a shared file
system a write and a sync, a new file under the old name ten times as much. It is begun again when it is large.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from hpc_agent.file_records import open_atomic
from hpc_agent.struct_types import decodable

_LARGEST_FILE = 64 * 1024


class Batch(msgspec.Struct, frozen=True):
    """Events that are being sent: they end at these offsets, and are stamped ``first_ms``, ``first_ms + 1`` …

    ``worker`` is theirs on the server, whichever process sends them again; empty in checkpoints of older versions.
    """

    ends: tuple[int, ...]
    first_ms: int
    worker: str = ""

    @property
    def last_ms(self) -> int:
        return self.first_ms + len(self.ends) - 1


class Checkpoint(msgspec.Struct, frozen=True):
    """Checkpoint of what the server has of the console: ``offset`` bytes, the last event stamped ``timestamp_ms``.

    ``sending`` is written before it is sent. Found later, it may or may not have arrived; sent again it is the same
    events with the same stamps, so that the server can be asked for them.
    """

    offset: int = 0
    timestamp_ms: int = 0
    sending: Batch | None = None
    before: str = ""
    """Checksum of the last bytes before ``offset``, where the file may be emptied; see ``Spool.continues``."""


class CheckpointFile:
    """File of checkpoints. The first write of each process makes a new file: a process that was taken for dead, and
    lives, goes on in the old one, which no reader sees any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._end = 0

    def read(self) -> Checkpoint:
        """The last whole checkpoint; an empty one where there is none, or it cannot be read: to send some lines twice
        is better than never to send the rest."""
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return Checkpoint()
        for line in reversed(lines):
            with contextlib.suppress(msgspec.DecodeError):
                return msgspec.json.decode(line, type=decodable(Checkpoint))
        return Checkpoint()

    def write(self, checkpoint: Checkpoint) -> None:
        """Returns when it is on disk.

        Raises:
            OSError: it was not written.
        """
        line = msgspec.json.encode(checkpoint) + b"\n"
        if not self._append(line):
            self.close()
            self._file = open_atomic(self.path, line, mode=0o600)
            self._end = len(line)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # each line was synced
                os.close(self._file)
            self._file = None

    def _append(self, line: bytes) -> bool:
        """Not in appending mode, which NFS refuses for good after its client's lease was lost."""
        if self._file is None or self._end + len(line) > _LARGEST_FILE:
            return False
        try:
            if os.fstat(self._file).st_nlink == 0 or os.pwrite(self._file, line, self._end) != len(line):
                return False
            os.fdatasync(self._file)
        except OSError:
            return False
        self._end += len(line)
        return True
