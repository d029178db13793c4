"""Memory of this job: how much it uses and may use, and whether the kernel killed a process of it for lack of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_MB = 1024 * 1024
_UNLIMITED = 1 << 60
"""Version 1 writes "no limit" as a number near 2^63."""


class JobMemory:
    """From the control group of the job; elsewhere what the scheduler granted, and the sum over our processes."""

    def __init__(
        self,
        granted_mb: float | None = None,
        *,
        own_groups: Path = Path("/proc/self/cgroup"),
        groups: Path = Path("/sys/fs/cgroup"),
        is_shared: bool = False,
    ) -> None:
        """``is_shared``: other tasks run in our control group, whose figures are not this task's."""
        found = () if is_shared else _groups(own_groups, groups)
        self._group = next((group for group in found if _limit(group)), None)
        self.limit_mb = _limit(self._group) / _MB if self._group else granted_mb
        """None: nothing is known of a limit."""
        self.peak_mb = 0.0
        """The most that was ever found in use."""
        self._kills_before = self._kills()

    def look(self) -> None:
        """Update ``peak_mb``; a short peak between two looks is seen only where the kernel keeps record."""
        used = _number(self._group, "memory.peak", "memory.max_usage_in_bytes") if self._group else 0
        self.peak_mb = max(self.peak_mb, (used or _resident()) / _MB)

    def has_run_out(self) -> bool:
        """Whether the kernel has ended a process of this job because memory ran out."""
        return self._kills() > self._kills_before

    @property
    def is_short(self) -> bool:
        """Whether as good as all was in use."""
        return bool(self.limit_mb) and self.peak_mb > 0.95 * (self.limit_mb or 0)

    def _kills(self) -> int:
        if self._group is None:
            return 0
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                words = dict(line.split() for line in (self._group / name).read_text(encoding="utf-8").splitlines())
                return int(words.get("oom_kill", 0))
        return 0


def _groups(own_groups: Path, groups: Path) -> Iterator[Path]:
    """Our control groups that count memory, from the innermost outwards."""
    try:
        lines = own_groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = groups / "memory" if controllers else groups
        inner = top / path.strip("/")
        yield from (group for group in (inner, *inner.parents) if group == top or top in group.parents)


def _limit(group: Path) -> int:
    """Bytes; 0 for none."""
    found = _number(group, "memory.max", "memory.limit_in_bytes")
    return found if found < _UNLIMITED else 0


def _number(group: Path, *names: str) -> int:
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            return int((group / name).read_text(encoding="utf-8"))
    return 0


def _resident() -> int:
    """Bytes of all our descendants; what they share counts more than once."""
    import psutil  # only where no control group counts memory

    total = 0
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total
