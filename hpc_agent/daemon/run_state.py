"""State of a run directory: its records, as the views that ``domain.decide`` reads."""

from __future__ import annotations

import contextlib
import re
from functools import cached_property

import msgspec

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import ExitEvidence
from hpc_agent.domain.job_phase import SubmissionView
from hpc_agent.domain.snapshot import ClaimView, ExitView, RunOwner
from hpc_agent.file_records import CorruptFileError
from hpc_agent.runs.attempt_records import ClaimRecord, ExitReport, StagingJobRecord, SubmissionRecord
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.backends import job_launch_failure
from hpc_agent.wire.task_state import TaskState

_TAIL = 4096
_MB = 1024 * 1024
_OVER_LIMIT = re.compile(r"exceeded memory limit \((\d+) > (\d+)\)")
_OOM_KILL = re.compile(r"oom[-_ ]kill", re.IGNORECASE)


class RunDirectoryState(msgspec.Struct, frozen=True, dict=True):
    """Records of one run directory."""

    directory: RunDirectory
    submission: SubmissionRecord | None = None
    claim: ClaimRecord | None = None
    report: ExitReport | None = None
    settled: bool = False
    staging: StagingJobRecord | None = None
    """Only while it matters: before the task's own job was submitted, or before there is a result."""

    @cached_property
    def submitted(self) -> SubmissionView | None:
        return self.submission.submitted if self.submission else None

    @cached_property
    def claimed(self) -> ClaimView | None:
        record = self.claim
        if record is None:
            return None
        job = JobId(record.job) if record.job else None
        return ClaimView(record.state != "intent", job, record.restart_count, record.user_process_started)

    @cached_property
    def ended(self) -> ExitView | None:
        report = self.report
        if report is None:
            return None
        again, gave_up = report.status == "again", report.status == "none"
        return ExitView(report.posted, report.cause, report.reason, again, gave_up, report.unsent)

    @property
    def queue(self) -> str:
        """The id of the queue that the task came from."""
        newest = self.submission or self.claim or self.staging
        return newest.queue if newest else ""

    @property
    def cluster(self) -> str:
        newest = self.submission or self.claim or self.staging
        return newest.cluster if newest else ""

    @property
    def job(self) -> JobId | None:
        """The job whose end decides: the claiming one, else the submitted one."""
        if self.claimed and self.claimed.job:
            return self.claimed.job
        return self.submitted.job if self.submitted else None

    @property
    def is_job_known(self) -> bool:
        """Whether ``job`` is ours whatever it is called: it wrote its claim down, or was listed under our name."""
        if self.claimed and self.claimed.job:
            return True
        return self.submission is not None and self.submission.known


def read(directory: RunDirectory) -> RunDirectoryState:
    """Read what is there.

    Raises:
        CorruptFileError: a record cannot be understood.
    """
    names = directory.names()
    if "settled.json" in names:
        return RunDirectoryState(directory, settled=True)
    came_after = bool({"submit.json", "claim.json"} & names) and "stage.json" in names
    return RunDirectoryState(
        directory,
        directory.submission() if "submit.json" in names else None,
        directory.claim() if "claim.json" in names else None,
        directory.exit_report() if "exit.json" in names else None,
        staging=directory.stage_job() if "stage-job.json" in names and not came_after else None,
    )


def run_owner(files: RunDirectoryState, seen: TaskState | None) -> RunOwner:
    """Owner of the run that the server shows. An agent of another kind keeps our run token, but reports itself."""
    if seen is None:
        return RunOwner.UNKNOWN
    claim = files.claim
    if claim is not None and claim.worker and seen.last_worker not in ("", claim.worker, *claim.predecessors):
        return RunOwner.ANOTHERS
    if not seen.run_token:
        return RunOwner.UNKNOWN
    return RunOwner.OURS if seen.run_token.startswith(f"{files.directory.attempt.id}.") else RunOwner.ANOTHERS


def exit_evidence(directory: RunDirectory) -> ExitEvidence:
    """Evidence that a job left in its directory in addition to its records; none where it cannot be read."""
    with contextlib.suppress(OSError, CorruptFileError):
        memory = directory.memory()
        text = _tail(directory)
        used = memory.used_mb if memory else None
        limit = memory.limit_mb if memory else None
        over = _OVER_LIMIT.search(text)
        if over:
            used, limit = int(over[1]) / _MB, int(over[2]) / _MB
        failure = job_launch_failure(text)
        lines = text.strip().splitlines()
        return ExitEvidence(
            used_mb=used,
            limit_mb=limit,
            out_of_memory=bool(over or _OOM_KILL.search(text)),
            not_launched=bool(failure),
            last_words=(failure or (lines[-1] if lines else ""))[:300],
        )
    return ExitEvidence()


def _tail(directory: RunDirectory) -> str:
    with directory.job_output.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - _TAIL, 0))
        return file.read().decode("utf-8", "replace")
