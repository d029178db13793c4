"""Task board: the tasks of one cluster that pilots may start, a few small files each (docs/internals/pilots.md).

open/17.task    what was submitted; the job's id is p17
open/17.claim   made by exactly one: the pilot that runs it, or who cancelled it before that
open/17.cancel  request to end it
open/17.stop    why its pilot ends it, written before the signal
open/17.end     how it ended, written by its pilot, or by the daemon for a pilot that is gone
ended/17        all of it in one file
full/4711       the pilot with this job id takes no more tasks
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from enum import Enum
from pathlib import Path

import msgspec

from hpc_agent import file_records
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobState
from hpc_agent.domain.pilot_slots import Slot, TaskDemand
from hpc_agent.process_id import ProcessId

_ID = re.compile(r"p([0-9]{1,18})")
_FILE = re.compile(r"([0-9]{1,18})\.(task|claim|cancel|stop|end)")


def task_job_id(number: int) -> JobId:
    """The job id of a task on the board."""
    return JobId(f"p{number}")


def task_number(job: str) -> int | None:
    """Number of a task on the board; None for the id of any other job."""
    match = _ID.fullmatch(job)
    return int(match[1]) if match else None


class PilotTask(msgspec.Struct, frozen=True):
    """Task as it was submitted."""

    name: str
    """The job's name."""
    queue: str
    """Name of the queue whose pilots may start it."""
    script: str
    workdir: str
    output: str
    slot: Slot
    time_limit: int
    """Seconds."""
    submitted: datetime
    warned: bool = False
    """Whether its agent is to be warned ahead of the time limit."""

    @property
    def demand(self) -> TaskDemand:
        return TaskDemand(self.slot, self.time_limit)


class PilotClaim(msgspec.Struct, frozen=True):
    """Pilot that has a task; without a pilot the task was cancelled before any had it."""

    at: datetime
    pilot: str = ""
    """Its job."""
    restarts: int = 0
    """Of the pilot's job when it took the task."""
    pilot_since: datetime | None = None
    """A time before the pilot was submitted."""
    node: str = ""
    process: ProcessId | None = None
    """Of the pilot itself."""
    gpus: tuple[str, ...] = ()


class StopCause(str, Enum):
    """Reason why a pilot ends a task."""

    PILOT = "its pilot ends"
    TIME_LIMIT = "time limit"
    MEMORY = "memory"
    CANCELLED = "cancelled"


class StopRecord(msgspec.Struct, frozen=True):
    at: datetime
    cause: StopCause


class TaskEnd(msgspec.Struct, frozen=True):
    """End of a task's process."""

    state: JobState
    at: datetime
    exit_code: int = 0
    signal: int = 0
    pilot: str = ""
    """The pilot whose end was its own, and how that ended; else empty."""


class EndedPilotTask(msgspec.Struct, frozen=True):
    """All that is kept of a task that has ended."""

    task: PilotTask
    end: TaskEnd
    claim: PilotClaim | None = None


class TaskBoard:
    """Board of one cluster. Several daemons and pilots use it at once, on any machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open = path / "open"
        self._full = path / "full"
        self._ended = path / "ended"
        self._highest = -1

    def numbers(self) -> dict[int, set[str]]:
        """Number of each open task, in order → the kinds of its files. One listing."""
        found: dict[int, set[str]] = {}
        with suppress(FileNotFoundError):
            for name in sorted(path.name for path in self._open.iterdir()):
                if match := _FILE.fullmatch(name):
                    found.setdefault(int(match[1]), set()).add(match[2])
        return {number: found[number] for number in sorted(found) if "task" in found[number]}

    def add(self, task: PilotTask) -> int:
        """Publish a task; returns its number, which is higher than any before.

        Raises:
            OSError: it may be on the board or not.
        """
        for folder in (self._open, self._ended):
            file_records.ensure_directory(folder, mode=0o700)
        number = max(self._highest, *self._all_numbers(), -1) + 1
        while self._ended_file(number).exists() or not file_records.write_first(self._file(number, "task"), task):
            number += 1
        self._highest = number
        return number

    def _all_numbers(self) -> set[int]:
        """Ended tasks are listed once: later ones were open before."""
        known = set(self.numbers())
        if self._highest < 0:
            known |= {int(path.name) for path in self._ended.iterdir() if path.name.isdigit()}
        return known

    def task(self, number: int) -> PilotTask | None:
        return file_records.read_record(self._file(number, "task"), PilotTask)

    def claim(self, number: int) -> PilotClaim | None:
        return file_records.read_record(self._file(number, "claim"), PilotClaim)

    def stop(self, number: int) -> StopRecord | None:
        return file_records.read_record(self._file(number, "stop"), StopRecord)

    def end(self, number: int) -> TaskEnd | None:
        return file_records.read_record(self._file(number, "end"), TaskEnd)

    def take(self, number: int, claim: PilotClaim) -> bool:
        """Make the claim, whole or not at all; False if there is one, or the task is no longer on the board."""
        try:
            taken = file_records.write_first(self._file(number, "claim"), claim)
        except FileNotFoundError:
            return False
        if taken and not file_records.exists_uncached(self._file(number, "task")):
            # It ended and was moved away between the listing that showed it and now.
            self._file(number, "claim").unlink(missing_ok=True)
            return False
        return taken

    def renew_claim(self, number: int, claim: PilotClaim) -> None:
        """Replace a claim of the same pilot's."""
        file_records.write_record(self._file(number, "claim"), claim)

    def drop_claim(self, number: int) -> None:
        """Leave a task to other pilots, by the one that has it and has not let it go."""
        self._file(number, "claim").unlink(missing_ok=True)

    def write_stop(self, number: int, stop: StopRecord) -> None:
        file_records.write_record(self._file(number, "stop"), stop)

    def write_end(self, number: int, end: TaskEnd) -> None:
        file_records.write_record(self._file(number, "end"), end)

    def request_cancel(self, number: int) -> None:
        with suppress(FileExistsError):
            self._file(number, "cancel").touch(mode=0o600, exist_ok=False)

    def retire(self, number: int, ended: EndedPilotTask) -> None:
        """Keep an ended task in one file, out of the listing of open ones. May be done again after a death in it."""
        file_records.write_record(self._ended_file(number), ended)
        # The task first: without it the others are not listed.
        for kind in ("task", "claim", "stop", "cancel", "end"):
            self._file(number, kind).unlink(missing_ok=True)

    def ended(self, number: int) -> EndedPilotTask | None:
        return file_records.read_record(self._ended_file(number), EndedPilotTask)

    def ended_since(self, since: datetime) -> dict[int, EndedPilotTask]:
        """Tasks that were kept as ended at or after ``since``."""
        found: dict[int, EndedPilotTask] = {}
        with suppress(FileNotFoundError):
            for path in self._ended.iterdir():
                with suppress(FileNotFoundError):
                    if path.name.isdigit() and path.stat().st_mtime >= since.timestamp() - 1:
                        ended = self.ended(int(path.name))
                        if ended is not None:
                            found[int(path.name)] = ended
        return found

    def sweep(self, before: datetime) -> None:
        """Remove what ended before this; the newest stays, so that no number returns."""
        with suppress(FileNotFoundError):
            for path in sorted(self._ended.iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else -1)[
                :-1
            ]:
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < before.timestamp():
                        path.unlink()

    def declare_full(self, pilot: str) -> None:
        """Say that a pilot takes no more tasks, because its time is nearly over."""
        (file_records.ensure_directory(self._full, mode=0o700) / pilot).touch(mode=0o600)

    def full_pilots(self, live: Collection[str]) -> set[str]:
        """Those of the ``live`` pilots that take no more tasks; what others said is removed."""
        found: set[str] = set()
        with suppress(FileNotFoundError):
            for path in self._full.iterdir():
                if path.name in live:
                    found.add(path.name)
                else:
                    path.unlink(missing_ok=True)
        return found

    def _file(self, number: int, kind: str) -> Path:
        return self._open / f"{number}.{kind}"

    def _ended_file(self, number: int) -> Path:
        return self._ended / str(number)
