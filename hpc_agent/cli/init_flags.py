"""The flags of ``hpc-agent init``."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

SERVICES = ("none", "systemd", "cron", "scrontab")


class InitFlags(msgspec.Struct, frozen=True):
    """The flags as given."""

    queues: tuple[str, ...] | None
    partition: str | None
    account: str | None
    qos: str | None
    root: str | None
    cache_dir: str | None
    scheduler: str | None
    service: str | None
    file: Path | None
    site: bool
    yes: bool
    dry_run: bool
    as_json: bool

    @property
    def asks(self) -> bool:
        return sys.stdin.isatty() and sys.stdout.isatty() and not (self.yes or self.as_json or self.dry_run)
