"""Identity of a process of this machine, which no other process with the same number has, not even after a reboot.

Not psutil's: its creation time is computed from the wall clock at boot, which a clock change moves, and what is
compared here was written down by another program, perhaps days ago.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

_STATE, _START = 0, 19
"""Positions after the command name in /proc/<pid>/stat (proc(5) counts them as 3 and 22)."""


class ProcessId(msgspec.Struct, frozen=True):
    """Identity of a process; part of records on disk."""

    pid: int
    ticks: int
    """When it started, in clock ticks since boot: no clock change moves it."""
    boot: str
    """Id of the boot of this machine."""

    def is_running(self) -> bool:
        if self.boot != boot_id():
            return False
        found = _stat(self.pid)
        if found is None or int(found[_START]) != self.ticks:
            return False
        if found[_STATE] == "Z":
            # A child of ours that was not waited for.
            with suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            return False
        return True


def process_id(pid: int) -> ProcessId | None:
    """Identity of the process that has this number now; None if there is none."""
    ticks = start_ticks(pid)
    return None if ticks is None else ProcessId(pid, ticks, boot_id())


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if there is none."""
    found = _stat(pid)
    return int(found[_START]) if found else None


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat after the command name, which may contain anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
