"""Memory of tasks that share a job: of each task's process and all that descends from it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def memory_of(roots: Collection[int], proc: Path = _PROC) -> dict[int, int]:
    """Bytes in use below each process. Pages that processes share count once for each of them."""
    families = _families(roots, proc)
    return {root: sum(resident for _, resident in family) for root, family in families.items()}


def shared_memory_of(root: int, proc: Path = _PROC) -> int:
    """As ``memory_of`` one process, where pages that several processes share count once in all. It is slower: to be
    asked where the other figure is too high."""
    [family] = _families([root], proc).values()
    return sum(_proportional(proc / str(pid), resident) for pid, resident in family)


def _proportional(process: Path, resident: int) -> int:
    with suppress(OSError):
        if match := _PSS.search((process / "smaps_rollup").read_text(encoding="ascii")):
            return int(match[1]) * 1024
    return resident


def _families(roots: Collection[int], proc: Path) -> dict[int, list[tuple[int, int]]]:
    """Root → process id and resident bytes of it and its descendants."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    for pid, parent, pages in _processes(proc):
        parents[pid], resident[pid] = parent, pages * _PAGE
    families: dict[int, list[tuple[int, int]]] = {root: [] for root in roots}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor not in families:
            ancestor = parents[ancestor]
        if ancestor in families:
            families[ancestor].append((pid, resident[pid]))
    return families


def _processes(proc: Path) -> Iterator[tuple[int, int, int]]:
    """Process id, parent's id, resident pages."""
    for name in os.listdir(proc):  # noqa: PTH208 - thousands of names, every two seconds
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                # The program's name may hold anything, in brackets.
                fields = (proc / name / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                yield int(name), int(fields[1]), int(fields[21])
