"""Current job: what squeue answers a job about itself, for each version."""

from __future__ import annotations

import pytest
from captured_slurm import DELIMITER, VERSIONS, captured
from fake_slurm import OWN_HEADER, own_row, printed

from hpc_agent.domain.job import CurrentJob, JobState
from hpc_agent.domain.termination_cause import TerminationCause, termination_cause
from hpc_agent.schedulers.slurm import answers

of_each_version = pytest.mark.parametrize("version", VERSIONS)


def answered(version: str, moment: str) -> CurrentJob:
    return answers.parse_own_job(captured(version, f"own_{moment}").stdout, DELIMITER)


def parsed(*rows: str, before: str = "") -> CurrentJob:
    return answers.parse_own_job(printed(before + OWN_HEADER + "".join(rows), DELIMITER), DELIMITER)


@of_each_version
@pytest.mark.parametrize(
    ("moment", "restarts", "cause"),
    [
        ("running", 0, TerminationCause.EXTERNAL_SIGNAL),
        ("cancelled", 0, TerminationCause.CANCELLED),
        ("preempted", 0, TerminationCause.PREEMPTED),
        ("preempted_requeued", 0, TerminationCause.REQUEUED),
        ("requeued", 0, TerminationCause.REQUEUED),
        ("restarted", 1, TerminationCause.EXTERNAL_SIGNAL),
        ("time_limit", 0, TerminationCause.TIME_LIMIT),
    ],
)
def test_slurm_says_why_it_tells_a_job_to_end(
    version: str, moment: str, restarts: int, cause: TerminationCause
) -> None:
    assert termination_cause(answered(version, moment), restarts) is cause


@of_each_version
def test_a_job_knows_how_much_time_it_has_left(version: str) -> None:
    left = answered(version, "running").left
    assert left is not None
    assert 50 <= left <= 60
    left = answered(version, "time_limit").left
    assert left is not None
    assert left <= 0


@of_each_version
def test_a_restarted_job_counts_its_time_again(version: str) -> None:
    job = answered(version, "restarted")
    assert (job.state, job.restarts) == (JobState.RUNNING, 1)
    assert job.ran_for <= 5


@of_each_version
@pytest.mark.parametrize("daemon", ["slurmctld", "munged"])
def test_without_an_answer_nothing_is_known(version: str, daemon: str) -> None:
    said = captured(version, f"own_{daemon}_down")
    assert said.returncode != 0
    with pytest.raises(ValueError, match="not one job of squeue: nothing"):
        answers.parse_own_job(said.stdout, DELIMITER)


def test_without_an_answer_the_cause_is_unknown() -> None:
    assert termination_cause(None, 0) is TerminationCause.UNKNOWN


def test_a_squeue_that_greets_is_understood() -> None:
    job = parsed(own_row("7", "COMPLETING", reason="TimeLimit"), before="4711 nodes are down\n\n")
    assert termination_cause(job, 0) is TerminationCause.TIME_LIMIT


@pytest.mark.parametrize("rows", [(), (own_row("7", "RUNNING"), own_row("8", "RUNNING"))])
def test_what_is_not_one_job_is_not_an_answer(rows: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="not one job of squeue"):
        parsed(*rows)


def test_cells_that_cannot_be_read_are_unknown() -> None:
    assert parsed(own_row("7", "HIBERNATING", restarts="?", reason="\n")) == CurrentJob(
        JobState.UNKNOWN, ran_for=1, time_limit=3600
    )


def test_a_job_of_an_array_learns_about_itself() -> None:
    assert parsed(own_row("7_3", "COMPLETING")).state is JobState.COMPLETING
