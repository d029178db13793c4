"""Records of a tracked job, in its folder on the shared file system: ``<root>/sbatch/<task>/``.

The folder is there from just before sbatch is called until the task has its final status.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from hpc_agent.domain.ids import TaskId
from hpc_agent.file_records import CorruptFileError, ensure_directory, read_record, write_record
from hpc_agent.runs.attempt_records import NotifiedRecord, Record
from hpc_agent.watcher.identity import ExpectedJob


class TrackingPlan(Record, frozen=True, kw_only=True):
    """``plan.json``: written before sbatch is called."""

    task: str
    since: datetime
    """No job submitted before is meant: job ids are used again."""
    queue: str = ""
    """Id of the queue that the task waits on, empty where it waits on none."""
    cluster: str = ""
    job_name: str = ""
    """That the job was submitted with."""
    hooked: bool = False
    """The job's bash starts the sidecar."""
    indices: tuple[int, ...] = ()
    """Of an array."""
    element: str = ""
    """Entry point of an array's element, see ``describe.TaskDescription``."""
    outputs: tuple[str, ...] = ()
    """Names of the output files as asked for, absolute, with Slurm's ``%`` patterns; standard output first."""

    def expected(self, *, confirmed: bool = False) -> ExpectedJob:
        """What is known of the job before it is observed. Plans of early versions have no name to compare with."""
        return ExpectedJob(self.job_name, self.since, confirmed=confirmed or not self.job_name)


class TrackedJobRecord(Record, frozen=True, kw_only=True):
    """``job.json``: sbatch accepted it. Written by who called sbatch, or by the job itself if that one died."""

    id: str
    """``123``, or ``123_4`` for an element of an array."""
    known: bool = False
    """It was seen under its name, or wrote this itself: it may be cancelled, see ``Scheduler.cancel``."""


class UnclearSubmissionRecord(Record, frozen=True, kw_only=True):
    """``unclear.json``: sbatch did not say whether, or which, job it made."""

    at: datetime
    """When sbatch had ended."""
    exit_code: int | None
    """None: not known, for who called it died."""
    message: str
    looked_at: datetime | None = None
    """When a job was first looked for and not found, by a scheduler that answered."""
    given_up: bool = False
    """It is looked for no more: it records itself when it starts, if ever."""


class OutputStream(Record, frozen=True, kw_only=True):
    """A file that takes the job's output. ``inode`` tells it from a file of the same name on another machine."""

    path: str
    inode: int = 0


class SidecarRecord(Record, frozen=True, kw_only=True):
    """``inside.json``: a process of ours watches from within the job; it sends console and usage while it lives."""

    host: str
    worker: str
    streams: tuple[OutputStream, ...] = ()
    over: bool = False
    """The script ended, and all that it printed is sent."""


class StartRecord(Record, frozen=True, kw_only=True):
    """``begun.json``: the task was set started for this job."""

    at: datetime


class ElementRecord(Record, frozen=True, kw_only=True):
    """``element-<index>.json``: the task that an element of an array has."""

    task: str


class EndedRecord(Record, frozen=True, kw_only=True):
    """``.ended/<task>.json``: its job is tracked no more."""

    at: datetime
    job: str


class TrackedDirectory(msgspec.Struct, frozen=True):
    path: Path

    @property
    def task(self) -> TaskId:
        return TaskId(self.path.name)

    @property
    def hook(self) -> Path:
        return self.path / "hook.bash"

    @property
    def log(self) -> Path:
        return self.path / "sidecar.log"

    @property
    def sizes(self) -> Path:
        """How long the output files were when the job began to append to them."""
        return self.path / "sizes"

    def mark(self, number: int) -> Path:
        """How far output file ``number`` has been sent."""
        return self.path / f"output{number}.offset"

    @property
    def notes(self) -> Path:
        """Console lines of our own, and next to it how far they have been sent."""
        return self.path / "notes.log"

    @property
    def notes_mark(self) -> Path:
        return self.path / "notes.offset"

    def sibling(self, task: TaskId) -> TrackedDirectory:
        return TrackedDirectory(self.path.parent / task)

    def create(self, plan: TrackingPlan) -> TrackedDirectory:
        ensure_directory(self.path.parent, mode=0o700)
        ensure_directory(self.path, mode=0o700)
        write_record(self.path / "plan.json", plan)
        return self

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def plan(self) -> TrackingPlan | None:
        return read_record(self.path / "plan.json", TrackingPlan)

    def job(self) -> TrackedJobRecord | None:
        return read_record(self.path / "job.json", TrackedJobRecord)

    def write_job(self, job: TrackedJobRecord) -> None:
        write_record(self.path / "job.json", job)

    def unclear(self) -> UnclearSubmissionRecord | None:
        return read_record(self.path / "unclear.json", UnclearSubmissionRecord)

    def write_unclear(self, unclear: UnclearSubmissionRecord) -> None:
        write_record(self.path / "unclear.json", unclear)

    def drop_job(self) -> None:
        """Unless it was found to be the one: a number that was recorded is not the job's."""
        job = self.job()
        if job is not None and not job.known:
            (self.path / "job.json").unlink(missing_ok=True)

    def sidecar(self) -> SidecarRecord | None:
        return read_record(self.path / "inside.json", SidecarRecord)

    def write_sidecar(self, sidecar: SidecarRecord) -> None:
        write_record(self.path / "inside.json", sidecar)

    @property
    def observations(self) -> Path:
        """History of what passes observed of the job."""
        return self.path / "seen.json"

    def start(self) -> StartRecord | None:
        return read_record(self.path / "begun.json", StartRecord)

    def write_start(self, start: StartRecord) -> None:
        write_record(self.path / "begun.json", start)

    def notified(self) -> NotifiedRecord:
        return read_record(self.path / "notified.json", NotifiedRecord) or NotifiedRecord()

    def write_notified(self, record: NotifiedRecord) -> None:
        write_record(self.path / "notified.json", record)

    def child(self, index: int) -> ElementRecord | None:
        return read_record(self.path / f"element-{index}.json", ElementRecord)

    def write_child(self, index: int, child: ElementRecord) -> None:
        write_record(self.path / f"element-{index}.json", child)


class TrackedRoot(msgspec.Struct, frozen=True):
    """``<root>/sbatch``."""

    path: Path

    @classmethod
    def under(cls, root: Path) -> TrackedRoot:
        """``root``: ``hpc.root``."""
        return cls(root.absolute() / "sbatch")

    @property
    def config(self) -> Path:
        """Server and keys for the processes inside of jobs."""
        return self.path / "agent.conf"

    @property
    def log(self) -> Path:
        return self.path / "follow.log"

    @property
    def lease(self) -> Path:
        return self.path / ".follow"

    def of(self, task: TaskId) -> TrackedDirectory:
        return TrackedDirectory(self.path / task)

    def all(self) -> Iterator[TrackedDirectory]:
        try:
            entries = sorted(self.path.iterdir())
        except FileNotFoundError:
            return
        yield from (TrackedDirectory(entry) for entry in entries if entry.is_dir() and not entry.name.startswith("."))

    # ------------------------------------------------------------ those that are tracked no more

    def write_ended(self, task: TaskId, ended: EndedRecord) -> None:
        ensure_directory(self._ended, mode=0o700)
        write_record(self._ended / f"{task}.json", ended)

    def ended_since(self, since: datetime) -> Iterator[tuple[TaskId, EndedRecord]]:
        """Those whose tracking ended then or later; records that cannot be read are left out."""
        for path in self._ended_since(since):
            with suppress(CorruptFileError, OSError):
                ended = read_record(path, EndedRecord)
                if ended is not None and ended.at >= since:
                    yield TaskId(path.stem), ended

    def prune_ended(self, before: datetime) -> None:
        """Remove the records of those that ended earlier."""
        kept = {*self._ended_since(before)}
        for path in self._ended.glob("*.json"):
            if path not in kept:
                path.unlink(missing_ok=True)

    @property
    def _ended(self) -> Path:
        return self.path / ".ended"

    def _ended_since(self, since: datetime) -> Iterator[Path]:
        """Files written then or later: a day's are read without all the others."""
        for path in self._ended.glob("*.json"):
            with suppress(OSError):
                if path.stat().st_mtime >= since.timestamp() - _CLOCKS_DIFFER_S:
                    yield path


_CLOCKS_DIFFER_S = 600.0
"""Between the file server and this machine, at most."""
