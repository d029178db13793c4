"""What squeue prints for a table of jobs, and what ``sbatch --test-only`` prints, as types."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from hpc_agent.domain.job import JobState
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.schedulers.slurm.job_inspector import parse_listed, parse_test

D = "|d|"
HEAD = "JOBID STATE RESTARTCNT SUBMIT_TIME START_TIME TIME TIME_LIMIT PARTITION NODELIST REASON NAME"


def table(*rows: str) -> str:
    return "\n".join("".join(f"{cell}{D}" for cell in row.split(" ")) for row in (HEAD, *rows))


def test_a_row_of_each_kind() -> None:
    running, pending = parse_listed(
        table(
            "7 RUNNING 1 1700000000 1700000100 1-00:00:05 2-00:00:00 main n1 None a",
            "8_3 PENDING 0 1700000000 1700003600 0:00 UNLIMITED main,short  Priority b",
        ),
        D,
    )
    assert (running.job.state, running.job.restarts, running.job.nodes) == (JobState.RUNNING, 1, "n1")
    assert (running.used_seconds, running.limit_seconds, running.partition) == (86405, 2 * 86400, "main")
    assert running.started == datetime.fromtimestamp(1700000100, timezone.utc) and running.job.expected_start is None
    assert (pending.job.id, pending.job.reason, pending.limit_seconds) == ("8_3", "Priority", None)
    assert pending.job.waits.advice == "jobs with a higher priority are ahead of it"
    assert pending.job.expected_start == datetime.fromtimestamp(1700003600, timezone.utc)
    assert (pending.used_seconds, pending.started, pending.partition) == (None, None, "main,short")


def test_no_jobs_and_no_answer_are_two_things() -> None:
    assert parse_listed(table(), D) == []
    with pytest.raises(SchedulerUnavailableError, match="squeue printed no table of jobs: Welcome"):
        parse_listed("Welcome to the cluster", D)


@pytest.mark.parametrize(
    ("text", "nodes", "partition"),
    [
        (
            "sbatch: Job 7 to start at 2026-01-31T12:00:00 using 1 processors on nodes n1 in partition main",
            "n1",
            "main",
        ),
        ("sbatch: Job 7 to start at 2026-01-31T12:00:00 using 1 processors on n[1-2]", "n[1-2]", ""),
    ],
)
def test_a_script_that_would_be_taken(text: str, nodes: str, partition: str) -> None:
    found = parse_test(0, f"{text}\n")
    assert (found.accepted, found.nodes, found.partition) == (True, nodes, partition)
    assert found.start == datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


def test_a_script_that_would_be_refused() -> None:
    found = parse_test(1, "sbatch: error: Batch job submission failed: Invalid partition name specified\n")
    assert (found.accepted, found.start) == (False, None)
    assert found.message == "Batch job submission failed: Invalid partition name specified"
    assert parse_test(1, "").message == "exit code 1 without a word"
