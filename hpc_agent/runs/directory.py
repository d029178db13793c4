"""The run directory of an attempt, and the folder that holds them all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, TaskId
from hpc_agent.file_batches import FileWrite
from hpc_agent.file_records import (
    Durability,
    ensure_directory,
    fsync_directory,
    read_record,
    write_first,
    write_record,
)
from hpc_agent.runs.attempt_records import (
    ClaimRecord,
    DoneRecord,
    ExitReport,
    MemoryRecord,
    NotifiedRecord,
    RequeueBudget,
    StagingJobRecord,
    SubmissionRecord,
    TaskError,
)
from hpc_agent.runs.open_attempts import OpenAttempts

RUN_DIR = "HPC_AGENT_RUN_DIR"
"""Set by the script that the daemon submitted: the daemon watches this run."""
FileVersion = tuple[int, int, int]
"""Inode, time of the last change, size: another one after each write of a record."""
_RESTARTS = "restarts.json"
_ATTEMPT = re.compile("[0-9a-f]{8}")


class ConsoleFiles(msgspec.Struct, frozen=True):
    """Console text, and how much of it the server has."""

    text: Path
    mark: Path


class RunDirectory(msgspec.Struct, frozen=True):
    """``runs/<task>/<attempt>/``. Readable by its owner only: consoles and scripts are private."""

    path: Path

    @property
    def attempt(self) -> Attempt:
        return Attempt(TaskId(self.path.parent.name), AttemptId(self.path.name))

    @property
    def script(self) -> Path:
        return self.path / "job.sbatch"

    @property
    def job_output(self) -> Path:
        """What the job itself prints: the agent's own log, and Slurm's messages."""
        return self.path / "job.out"

    def console(self, start: int = 0) -> ConsoleFiles:
        """The console of one start of the job. Each has its own: one that the scheduler takes for dead may still
        write."""
        name = f"console.{start}" if start else "console"
        return ConsoleFiles(self.path / f"{name}.log", self.path / f"{name}.offset")

    def consoles(self) -> list[ConsoleFiles]:
        """Those that are here, in the order of the starts."""
        starts = (match[1] for name in self.names() if (match := re.fullmatch(r"console(?:\.(\d+))?\.log", name)))
        return [self.console(start) for start in sorted(int(start or 0) for start in starts)]

    @property
    def notes(self) -> ConsoleFiles:
        """Console lines of the daemon's own."""
        return ConsoleFiles(self.path / "notes.log", self.path / "notes.offset")

    @property
    def owner_config(self) -> Path:
        """The configuration of a job that has credentials of its own."""
        return self.path / "owner.conf"

    @property
    def stage(self) -> Path:
        return self.path / "stage.json"

    @property
    def stage_failure(self) -> Path:
        """Why a staging job could not stage, for the task."""
        return self.path / "stage.failed"

    def create(self) -> RunDirectory:
        if not self.path.is_dir():
            ensure_directory(self.path.parent.parent, mode=0o700)
            self._open_attempts.add(self.attempt)
            try:
                ensure_directory(self.path, mode=0o700)
            except FileNotFoundError:  # a sweep has removed the task's folder while that was empty
                ensure_directory(self.path, mode=0o700)
        return self

    @property
    def _open_attempts(self) -> OpenAttempts:
        return RunsFolder(self.path.parent.parent).open_attempts

    def submission(self) -> SubmissionRecord | None:
        return read_record(self.path / "submit.json", SubmissionRecord)

    def write_submission(self, record: SubmissionRecord, durability: Durability = Durability.NEW) -> None:
        write_record(self.path / "submit.json", record, durability=durability)

    def submission_write(self, record: SubmissionRecord, *, is_first: bool = False) -> FileWrite:
        """To be written together with others."""
        return FileWrite.of_record(self.path / "submit.json", record, is_first=is_first)

    def first_submission(self, record: SubmissionRecord) -> bool:
        """Write the submission unless there is one: True for exactly one writer."""
        return write_first(self.path / "submit.json", record)

    def first_try(self, record: SubmissionRecord) -> SubmissionRecord:
        """The record of submission number ``record.submit_count``: this one, or that of the writer that was first."""
        name = f"try.{record.submit_count}.json"
        if write_first(self.path / name, record):
            return record
        return read_record(self.path / name, SubmissionRecord) or record

    def drop_try(self, number: int) -> None:
        """Nothing was submitted in this try after all."""
        (self.path / f"try.{number}.json").unlink(missing_ok=True)

    def drop_submission(self) -> None:
        """The scheduler certainly has no job of it."""
        (self.path / "submit.json").unlink(missing_ok=True)

    def claim(self) -> ClaimRecord | None:
        return read_record(self.path / "claim.json", ClaimRecord)

    def claim_version(self) -> FileVersion | None:
        """Version of ``claim.json``; None where there is none, or it cannot be opened.

        Of the open file: its times by name may come from an NFS client's cache.
        """
        try:
            descriptor = os.open(self.path / "claim.json", os.O_RDONLY)
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
        except OSError:  # the file server has lost it meanwhile
            return None
        finally:
            os.close(descriptor)
        return status.st_ino, status.st_mtime_ns, status.st_size

    def write_claim(self, record: ClaimRecord) -> None:
        write_record(self.path / "claim.json", record)

    def first_claim(self, record: ClaimRecord) -> bool:
        """Write the claim unless there is one: True for exactly one writer."""
        return write_first(self.path / "claim.json", record)

    def drop_claim(self) -> None:
        """Put a claim aside whose owner is certainly gone; it stays readable under another name."""
        try:
            (self.path / "claim.json").rename(self.path / f"claim.{secrets.token_hex(4)}.old.json")
        except FileNotFoundError:
            return
        fsync_directory(self.path)

    def exit_report(self) -> ExitReport | None:
        return read_record(self.path / "exit.json", ExitReport)

    def write_exit_report(self, record: ExitReport) -> None:
        write_record(self.path / "exit.json", record)

    def drop_exit_report(self) -> None:
        """The task goes on: how it ended before no longer holds."""
        (self.path / "exit.json").unlink(missing_ok=True)

    def stage_job(self) -> StagingJobRecord | None:
        """The job that stages for this attempt, if one was submitted."""
        return read_record(self.path / "stage-job.json", StagingJobRecord)

    def write_stage_job(self, record: StagingJobRecord) -> None:
        write_record(self.path / "stage-job.json", record)

    def memory(self) -> MemoryRecord | None:
        return read_record(self.path / "memory.json", MemoryRecord)

    def write_memory(self, record: MemoryRecord) -> None:
        write_record(self.path / "memory.json", record)

    @property
    def observations(self) -> Path:
        """History of what passes observed of the job."""
        return self.path / "seen.json"

    @property
    def staging_observations(self) -> Path:
        """As ``observations``, of the job that stages."""
        return self.path / "stage-seen.json"

    def notified(self) -> NotifiedRecord:
        return read_record(self.path / "notified.json", NotifiedRecord) or NotifiedRecord()

    def write_notified(self, record: NotifiedRecord) -> None:
        write_record(self.path / "notified.json", record)

    def task_error(self) -> TaskError | None:
        return read_record(self.path / "trouble.json", TaskError)

    def write_task_error(self, record: TaskError) -> None:
        write_record(self.path / "trouble.json", record)

    def drop_task_error(self) -> None:
        (self.path / "trouble.json").unlink(missing_ok=True)

    def set_aside(self) -> None:
        """Make room for a new directory where this one cannot be used; what is here stays, under another name."""
        path = self.path if self.path.parent.is_dir() else self.path.parent
        if path.exists() or path.is_symlink():
            path.rename(path.with_name(f".{path.name}.{secrets.token_hex(4)}.unreadable"))

    def requeue_budget(self) -> RequeueBudget:
        """Of the task, over all its attempts."""
        return read_record(self.path.parent / _RESTARTS, RequeueBudget) or RequeueBudget()

    def requeue_key(self, start: int) -> str:
        return f"{self.path.name}.{start}"

    def count_requeue(self, start: int) -> RequeueBudget:
        """Count a restart after this start of this attempt, once."""
        before = self.requeue_budget()
        key = self.requeue_key(start)
        if key in before.requeues:
            return before
        after = RequeueBudget(requeues=(*before.requeues, key))
        write_record(self.path.parent / _RESTARTS, after)
        return after

    def has_rival(self) -> bool:
        """Whether another attempt at the task, perhaps of another cluster, has claimed it and is not settled."""
        others = RunsFolder(self.path.parent.parent).attempts(self.attempt.task)
        names = (other.names() for other in others if other != self)
        return any("claim.json" in found and "settled.json" not in found for found in names)

    def reset_requeue_budget(self) -> None:
        (self.path.parent / _RESTARTS).unlink(missing_ok=True)

    def settled(self) -> DoneRecord | None:
        return read_record(self.path / "settled.json", DoneRecord)

    def write_settled(self, record: DoneRecord) -> None:
        write_record(self.path / "settled.json", record)
        self._open_attempts.remove(self.attempt)

    def names(self) -> frozenset[str]:
        """The files that are here, asked in the way that NFS answers truly at once.

        See docs/internals/performance.md#nfs-visibility.
        """
        try:
            return frozenset(entry.name for entry in self.path.iterdir())
        except FileNotFoundError:
            return frozenset()


class RunsFolder(msgspec.Struct, frozen=True):
    """``runs/``: one folder a task, in it one an attempt."""

    path: Path

    def of(self, attempt: Attempt) -> RunDirectory:
        return RunDirectory(self.path / attempt.task / attempt.id)

    def tasks(self) -> list[TaskId]:
        try:
            return sorted(TaskId(entry.name) for entry in self.path.iterdir() if not entry.name.startswith("."))
        except FileNotFoundError:
            return []

    def attempts(self, task: TaskId) -> Iterator[RunDirectory]:
        try:
            names = sorted(entry.name for entry in (self.path / task).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            if _ATTEMPT.fullmatch(name):
                yield RunDirectory(self.path / task / name)

    def drop_if_empty(self, task: TaskId) -> None:
        """Remove a task's folder that holds no attempt any more."""
        if next(self.attempts(task), None) is None:
            with contextlib.suppress(OSError):
                (self.path / task / _RESTARTS).unlink(missing_ok=True)
                (self.path / task).rmdir()

    @property
    def open_attempts(self) -> OpenAttempts:
        return OpenAttempts(self.path / ".open")

    @property
    def nodes(self) -> Path:
        """Where deaths of jobs are counted by node."""
        return self.path / ".nodes.json"
