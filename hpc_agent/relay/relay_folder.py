"""Records of the relay on the shared file system: its secret, and where the daemons listen.

All are below ``<root>/relay/<cluster>``, which only its user can read.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from datetime import datetime
from pathlib import Path

import msgspec

from hpc_agent.file_records import CorruptFileError, ensure_directory, read_record, write_first, write_record
from hpc_agent.redact import Secret

NONCE_BYTES = 32


class ListenRecord(msgspec.Struct, frozen=True):
    """Address of one daemon's relay."""

    host: str
    port: int
    at: datetime


class _SecretRecord(msgspec.Struct, frozen=True):
    secret: str


class RelayFolder:
    """Folder of a cluster's relay; made where it is missing."""

    def __init__(self, root: Path, cluster: str) -> None:
        self.path = ensure_directory(root / "relay" / cluster, mode=0o700)

    @property
    def connections(self) -> Path:
        """Where connections through files are."""
        return ensure_directory(self.path / "connections", mode=0o700)

    def secret(self) -> Secret:
        """Of all jobs and daemons of this user and cluster; made at the first call.

        Raises:
            CorruptFileError: it cannot be read.
        """
        path = self.path / "secret.json"
        record = read_record(path, _SecretRecord)
        if record is None:
            write_first(path, _SecretRecord(secrets.token_urlsafe(32)), mode=0o600)
            record = read_record(path, _SecretRecord)
        if record is None:
            raise CorruptFileError(f"{path} was removed while it was read")
        return Secret(record.secret)

    def announce(self, daemon: str, record: ListenRecord) -> None:
        write_record(self._listen_path(daemon), record, mode=0o600)

    def withdraw(self, daemon: str) -> None:
        self._listen_path(daemon).unlink(missing_ok=True)

    def listening(self) -> list[ListenRecord]:
        """The daemons' addresses, the last announced first. Some may be of daemons that died."""
        found = []
        for path in self.path.glob("listen.*.json"):
            with contextlib.suppress(CorruptFileError, OSError):
                record = read_record(path, ListenRecord)
                if record is not None:
                    found.append(record)
        return sorted(found, key=lambda record: record.at, reverse=True)

    def _listen_path(self, daemon: str) -> Path:
        return self.path / f"listen.{hashlib.sha256(daemon.encode()).hexdigest()[:12]}.json"


def proof(secret: Secret, *parts: str) -> str:
    """What shows that one knows the secret. ``parts``: who proves it, what the other side sent for it, and all that it
    is to hold for; none contains a NUL."""
    return hmac.new(secret.reveal().encode(), "\0".join(parts).encode(), hashlib.sha256).hexdigest()
