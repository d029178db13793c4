"""Inspector of Slurm's jobs: one squeue with the columns of a table for people, and ``sbatch --test-only``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from msgspec.structs import replace

from hpc_agent.domain import duration
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobState, LiveJob
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers.inspector import AccountedUsage, JobInspector, ListedJob, SubmitTest
from hpc_agent.schedulers.slurm.answers import JOB_ID, WOULD_START, state, time
from hpc_agent.schedulers.slurm.array_driver import SlurmArrays
from hpc_agent.schedulers.slurm.delimited_table import new_delimiter, read_table
from hpc_agent.schedulers.slurm.driver import SlurmScheduler
from hpc_agent.schedulers.slurm.usage_answers import parse_usage, sacct_usage
from hpc_agent.schedulers.slurm.wait_reasons import meaning, readable

_COLUMNS: Mapping[str, int] = {
    "JobArrayID": 32,
    "State": 24,
    "RestartCnt": 8,
    "SubmitTime": 24,
    "StartTime": 24,
    "TimeUsed": 24,
    "TimeLimit": 24,
    "Partition": 64,
    "NodeList": 128,
    "Reason": 128,
    "Name": 256,
}
"""Each with the width at which squeue cuts it."""
_JOBS_AT_ONCE = 1000
"""A command line of 20 kB."""
_WAITING = (JobState.PENDING, JobState.REQUEUED)


class SlurmInspector(JobInspector):
    """See ``schedulers.inspector.JobInspector``."""

    def __init__(self, slurm: SlurmScheduler, arrays: SlurmArrays) -> None:
        super().__init__(arrays)
        self._slurm = slurm
        self._arrays = arrays

    def listed(self) -> Sequence[ListedJob]:
        delimiter = new_delimiter()
        found = parse_listed(self._slurm.ask(squeue_listed(self._slurm.user, delimiter)), delimiter)
        return [replace(each, job=self._arrays.with_own_name(each.job)) for each in found]

    def usage(self, jobs: Sequence[str], since: datetime) -> Mapping[str, AccountedUsage]:
        found: dict[str, AccountedUsage] = {}
        for start in range(0, len(jobs), _JOBS_AT_ONCE):
            delimiter = new_delimiter()
            text = self._slurm.ask_accounting(sacct_usage(jobs[start : start + _JOBS_AT_ONCE], since, delimiter))
            if text is None:
                return {}
            found |= parse_usage(text, delimiter)
        return found

    def test(self, script: Path, workdir: Path, *, partition: str = "") -> SubmitTest:
        returncode, text = self._slurm.test_submission(script, workdir, partition)
        return parse_test(returncode, text)


def squeue_listed(user: str, delimiter: str) -> list[str]:
    """All jobs of a user, one row for each array element."""
    columns = ",".join(f"{column}:{width}{delimiter}" for column, width in _COLUMNS.items())
    return ["squeue", "--all", "--array", f"--user={user}", f"--Format={columns}"]


def parse_listed(text: str, delimiter: str) -> list[ListedJob]:
    """
    Raises:
        SchedulerUnavailableError: this is not what squeue prints.
    """
    table = read_table(text, len(_COLUMNS), delimiter)
    if table is None:
        raise SchedulerUnavailableError(f"squeue printed no table of jobs: {text.strip()[:200] or 'nothing'}")
    return [_listed(cells) for cells in table.rows if JOB_ID.fullmatch(cells[0])]


def _listed(cells: Sequence[str]) -> ListedJob:
    id, word, restarts, submitted, start, used, limit, partition, nodes, reason, name = cells
    waits = state(word) in _WAITING
    reason = readable(reason) if waits and reason != "None" else ""
    job = LiveJob(
        id=JobId(id),
        name=name,
        state=state(word),
        raw_state=word,
        reason=reason,
        expected_start=time(start) if waits else None,
        nodes=nodes,
        restarts=int(restarts) if re.fullmatch(r"[0-9]{1,9}", restarts) else 0,
        submitted=time(submitted),
        waits=meaning(reason, JobId(id)),
    )
    ran = None if waits else duration.seconds(used)
    return ListedJob(job, partition, ran, duration.seconds(limit), None if waits else time(start))


def parse_test(returncode: int, text: str) -> SubmitTest:
    """What ``sbatch --test-only`` printed under TZ=UTC."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in text.splitlines()]
    said = "; ".join(line for line in lines if line)
    match = WOULD_START.search(said)
    if returncode or match is None:
        return SubmitTest(returncode == 0, said or f"exit code {returncode} without a word")
    return SubmitTest(True, said, _utc(match["start"]), match["nodes"] or "", match["partition"] or "")


def _utc(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    except ValueError:
        return time(text)
