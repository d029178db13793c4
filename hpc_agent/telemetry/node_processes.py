"""Processes of the ranks on this node, which are the scheduler's children and not ours: found by their environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import psutil


class NodeProcesses:
    """Processes that have ``variable=value`` in their environment, and all that descends from them."""

    def __init__(self, variable: str, value: str) -> None:
        self._mark = f"{variable}={value}".encode()
        self._known: dict[int, tuple[float, bool]] = {}
        """Pid → when it began, and whether it is one."""
        self._cpu: dict[tuple[int, float], float] = {}

    def find(self) -> list[psutil.Process]:
        """Those that run now."""
        found: dict[int, psutil.Process] = {}
        known: dict[int, tuple[float, bool]] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                began, is_one = self._known.get(process.pid, (0.0, False))
                # A program that was not one yet may have become one: the launcher becomes it.
                if began != process.create_time() or not is_one:
                    began, is_one = process.create_time(), self._is_marked(process)
                known[process.pid] = began, is_one
                if is_one:
                    found[process.pid] = process
        self._known = known
        for process in list(found.values()):
            with contextlib.suppress(psutil.Error):
                found.update((child.pid, child) for child in process.children(recursive=True))
        return [process for process in found.values() if _lives(process)]

    def _is_marked(self, process: psutil.Process) -> bool:
        with open(f"/proc/{process.pid}/environ", "rb") as file:  # noqa: PTH123 (hundreds a second)
            return self._mark in file.read().split(b"\0")

    def signal(self, number: int, *, only_descendants: bool = False) -> int:
        """Signal all of them; returns how many there are. ``only_descendants``: those that another one has started."""
        found = self.find()
        pids = {process.pid for process in found}
        for process in found:
            if only_descendants and _parent(process) not in pids:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)
        return len(found)

    def signal_chosen(self, number: int, chosen: Callable[[int], bool]) -> list[int]:
        """Signal those whose pid is ``chosen``; returns them."""
        found = [process.pid for process in self.find() if chosen(process.pid)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        return found

    def cpu_seconds(self) -> float:
        """Of all that were seen, those that have ended too."""
        for process in self.find():
            with contextlib.suppress(psutil.Error):
                self._cpu[process.pid, process.create_time()] = sum(process.cpu_times()[:2])
        return sum(self._cpu.values())

    def memory(self) -> float:
        """Bytes; pages that processes share count more than once."""
        total = 0
        for process in self.find():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total


def _parent(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.ppid())
    return 0


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
