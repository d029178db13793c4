"""Records of a run directory → the facts that ``domain.decide`` reads."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_agent.domain.decide import Claimed, Ended, Handed, Submitted
from hpc_agent.domain.ids import JobId
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.runs.records import Claim, ExitReport, Submission


@dataclass(frozen=True)
class Files:
    """What stands in one run directory."""

    directory: RunDirectory
    submission: Submission | None = None
    claim: Claim | None = None
    report: ExitReport | None = None
    settled: bool = False

    @property
    def submitted(self) -> Submitted | None:
        record = self.submission
        if record is None:
            return None
        return Submitted(Handed(record.state), record.at, JobId(record.job) if record.job else None, record.tries)

    @property
    def claimed(self) -> Claimed | None:
        record = self.claim
        if record is None:
            return None
        kind, _, job = record.owner.partition(":")
        # A job that this run's daemon did not submit may be on any cluster: nothing is concluded from its number.
        ours = kind == "job" and self.submission is not None
        return Claimed(record.state == "won", record.at, JobId(job) if ours else None)

    @property
    def ended(self) -> Ended | None:
        return Ended(self.report.posted, self.report.interrupted) if self.report else None

    @property
    def job(self) -> JobId | None:
        """The job whose end decides: the claiming one, else the submitted one."""
        if self.claimed and self.claimed.job:
            return self.claimed.job
        return self.submitted.job if self.submitted else None


def read(directory: RunDirectory) -> Files:
    """Read what is there.

    Raises:
        CorruptFileError: a record cannot be understood.
    """
    names = directory.names()
    if "settled.json" in names:
        return Files(directory, settled=True)
    return Files(
        directory,
        directory.submission() if "submit.json" in names else None,
        directory.claim() if "claim.json" in names else None,
        directory.exit_report() if "exit.json" in names else None,
    )
