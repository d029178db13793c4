"""Job of the local scheduler: a folder whose files are its whole state.

<id>/spec.json    what was submitted; the folder appears with it, at once and whole
<id>/script       a copy, as Slurm makes one
<id>/claim.json   made by exactly one: the supervisor that runs the job, or who cancelled it before that
<id>/child.json   the job's own process, started by the supervisor
<id>/cancel.json  request to end a running job
<id>/ending.json  how it ended, written by the supervisor, or by the first process that sees that there is none any more
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from hpc_agent import file_records
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobState
from hpc_agent.process_id import ProcessId, boot_id
from hpc_agent.schedulers.base import Share


class Spec(msgspec.Struct, frozen=True):
    """Submitted job: its name, working directory, output file and limits."""

    name: str
    workdir: str
    output: str
    gpus: int
    time_limit: int | None
    """Seconds."""
    submitted: datetime
    share: Share | None = None
    """Whose part of the machine it takes; None: the starting process's."""


class DeviceClaim(msgspec.Struct, frozen=True):
    """Supervisor that has the job; without a process: the job was cancelled before it started."""

    at: datetime
    process: ProcessId | None = None
    gpus: tuple[str, ...] = ()


class CancelRequest(msgspec.Struct, frozen=True):
    at: datetime


class LocalExit(msgspec.Struct, frozen=True):
    """Exit of a job."""

    state: JobState
    at: datetime | None = None
    exit_code: int = 0
    signal: int = 0
    reason: str = ""


class JobFolder:
    """One job's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> JobId:
        return JobId(self.path.name)

    @property
    def script(self) -> Path:
        return self.path / "script"

    def spec(self) -> Spec | None:
        """What was submitted; None when the folder has been cleared away meanwhile."""
        return file_records.read_record(self.path / "spec.json", Spec)

    def claim(self) -> DeviceClaim | None:
        return file_records.read_record(self.path / "claim.json", DeviceClaim)

    def child(self) -> ProcessId | None:
        return file_records.read_record(self.path / "child.json", ProcessId)

    def cancel_request(self) -> CancelRequest | None:
        return file_records.read_record(self.path / "cancel.json", CancelRequest)

    def write_child(self, process: ProcessId) -> None:
        file_records.write_record(self.path / "child.json", process)

    def write_cancel_request(self, request: CancelRequest) -> None:
        file_records.write_record(self.path / "cancel.json", request)

    def is_closed(self) -> bool:
        """Whether its ending is written down: all that has to be looked at of the many jobs of the last days."""
        return (self.path / "ending.json").exists()

    def write_ending(self, ending: LocalExit) -> None:
        file_records.write_record(self.path / "ending.json", ending)

    def take(self, claim: DeviceClaim) -> bool:
        """Make the claim, whole or not at all; False if there is one."""
        return file_records.write_first(self.path / "claim.json", claim)

    def ending(self) -> LocalExit | None:
        """How the job ended, or None if it waits or runs."""
        claim = self.claim()
        if claim is None:
            return None
        if claim.process is None:
            return LocalExit(JobState.CANCELLED, claim.at)
        if (written := self._written_ending()) or self.runs(claim):
            return written
        # Looked at again: it may have been written while we looked for its writer.
        return self._written_ending() or self._without_report(claim.process)

    def runs(self, claim: DeviceClaim) -> bool:
        """Whether anything of the job runs; the job itself may outlive a supervisor that was killed."""
        child = self.child()
        return bool(claim.process and claim.process.is_running()) or bool(child and child.is_running())

    def _written_ending(self) -> LocalExit | None:
        return file_records.read_record(self.path / "ending.json", LocalExit)

    def _without_report(self, process: ProcessId) -> LocalExit:
        if process.boot != boot_id():
            return LocalExit(JobState.NODE_FAIL, reason="the machine restarted while it ran")
        reason = "its supervisor was killed and left no exit code"
        if self.cancel_request() is not None:
            return LocalExit(JobState.CANCELLED, reason=reason)
        return LocalExit(JobState.FAILED, exit_code=1, reason=reason)


class JobsFolder:
    """All jobs of one machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[JobFolder]:
        """In the order of their submission."""
        return [JobFolder(self.path / str(number)) for number in sorted(self._numbers())]

    def get(self, job: JobId) -> JobFolder:
        return JobFolder(self.path / job)

    def add(self, spec: Spec, script: bytes) -> JobFolder:
        """Publish a new job under the next free number."""
        draft = file_records.ensure_directory(self.path, mode=0o700) / f".new.{os.getpid()}.{secrets.token_hex(4)}"
        draft.mkdir(mode=0o700)
        try:
            file_records.write_atomic(draft / "script", script, mode=0o700)
            file_records.write_record(draft / "spec.json", spec)
            number = max(self._numbers(), default=0) + 1
            while not file_records.rename_new(draft, self.path / str(number)):
                number += 1
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return JobFolder(self.path / str(number))

    def clear_away(self, before: datetime) -> None:
        """Remove jobs that were submitted before this and have ended; the newest stays, so that no number returns."""
        for job in self.all()[:-1]:
            if job.is_closed() and (spec := job.spec()) is not None and spec.submitted < before:
                shutil.rmtree(job.path, ignore_errors=True)
        for draft in self.path.glob(".new.*"):
            with suppress(FileNotFoundError):
                if draft.stat().st_mtime < before.timestamp():
                    shutil.rmtree(draft, ignore_errors=True)

    def _numbers(self) -> Iterator[int]:
        with suppress(FileNotFoundError):
            yield from (int(path.name) for path in self.path.iterdir() if path.name.isdigit())
