"""What squeue of each version printed, as types."""

from __future__ import annotations

from datetime import timedelta

import pytest
from captured_slurm import DELIMITER, HOSTILE_NAMES, OUR_JOB, VERSIONS, captured, names
from msgspec.structs import replace

from hpc_agent.domain.job import JobRecord, JobState, LiveJob
from hpc_agent.schedulers.records import newest
from hpc_agent.schedulers.slurm import answers

pytestmark = pytest.mark.parametrize("version", VERSIONS)


def answer(version: str, name: str) -> answers.QueueAnswer:
    return answers.parse_squeue(captured(version, name).stdout, DELIMITER)


def live(version: str) -> list[LiveJob]:
    read = answer(version, "squeue_live")
    assert read.unreadable == 0
    return [answers.live_job(row) for row in read.rows]


def one(version: str, name: str) -> LiveJob:
    [job] = [job for job in live(version) if job.name == name]
    return job


def ended(version: str, name: str) -> JobRecord:
    [row] = [row for row in answer(version, "squeue_ended").rows if row.name == name]
    return answers.ended_job(row)


# ---------------------------------------------------------------- jobs that are there


def test_a_job_that_runs_has_a_node_and_no_reason(version: str) -> None:
    job = one(version, "running")
    assert job.submitted is not None
    assert job == LiveJob(job.id, "running", JobState.RUNNING, "RUNNING", nodes="n1", submitted=job.submitted)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("for resources", "Resources"),
        ("for its time", "BeginTime"),
        ("held", "JobHeldUser"),
        ("after another", "Dependency"),
    ],
)
def test_a_job_that_waits_has_a_reason(version: str, name: str, reason: str) -> None:
    job = one(version, name)
    assert (job.state, job.reason, job.nodes) == (JobState.PENDING, reason, "")


def test_the_start_that_is_expected_is_known_where_slurm_knows_it(version: str) -> None:
    [row] = [row for row in answer(version, "squeue_live").rows if row.name == "for its time"]
    assert row.submitted is not None
    assert one(version, "for its time").expected_start == row.start == row.submitted + timedelta(hours=1)
    assert one(version, "held").expected_start is None


def test_a_suspended_job_is_there(version: str) -> None:
    assert one(version, "suspended").state is JobState.SUSPENDED


def test_a_requeued_job_shows_how_often(version: str) -> None:
    job = one(version, "restarted")
    assert (job.state, job.restarts, job.reason) == (JobState.PENDING, 1, "BeginTime")


def test_each_array_element_has_a_row_of_its_own(version: str) -> None:
    elements = {job.id.partition("_")[2]: job for job in live(version) if job.name == "array of three, one at once"}
    assert sorted(elements) == ["1", "2", "3"]
    assert elements["1"].state is JobState.RUNNING
    assert elements["2"].reason == elements["3"].reason == "JobArrayTaskLimit"


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_may_hold_anything(version: str, name: str) -> None:
    """256 bytes of it are asked for."""
    shown = HOSTILE_NAMES[name].encode()[:256].decode().strip()
    job = one(version, shown)
    assert (job.state, job.reason) == (JobState.PENDING, "JobHeldUser")


def test_a_job_that_was_renamed_is_listed_under_its_new_name(version: str) -> None:
    job = one(version, "re\nnamed")
    assert (job.state, job.nodes) == (JobState.RUNNING, "n1")
    assert answer(version, "squeue_hostile_name").unreadable == 0


def test_no_name_hides_or_makes_a_job(version: str) -> None:
    """Those that no test names: three and two elements of arrays."""
    named = {"running", "suspended", "restarted", "re\nnamed", "for resources", "for its time", "held", "after another"}
    assert len(live(version)) == len(named) + 3 + 2 + len(HOSTILE_NAMES)
    assert len({job.id for job in live(version)}) == len(live(version))


def test_a_job_is_found_by_its_name(version: str) -> None:
    [row] = answer(version, "squeue_by_name").rows
    assert row.name == OUR_JOB


def test_no_jobs_are_not_an_error(version: str) -> None:
    assert answer(version, "squeue_unknown_name") == answers.QueueAnswer((), 0)


# ---------------------------------------------------------------- jobs that ended


@pytest.mark.parametrize(
    ("name", "state", "exit_code", "signal"),
    [
        ("completed", JobState.COMPLETED, 0, 0),
        ("exit code 3", JobState.FAILED, 3, 0),
        ("signal 9", JobState.FAILED, 0, 9),
        ("cancelled before it ran", JobState.CANCELLED, 0, 0),
    ],
)
def test_jobs_that_ended_lately_are_records_too(
    version: str, name: str, state: JobState, exit_code: int, signal: int
) -> None:
    record = ended(version, name)
    assert (record.state, record.exit_code, record.signal) == (state, exit_code, signal)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("cancelled_running", JobState.CANCELLED),
        ("preempted", JobState.PREEMPTED),
        ("node_failed", JobState.NODE_FAIL),
        ("time_limit", JobState.TIMEOUT),
    ],
)
def test_what_ended_a_job_is_its_state(version: str, name: str, state: JobState) -> None:
    assert ended(version, name).state is state


def test_a_requeued_job_has_no_verdict(version: str) -> None:
    for name in ("requeued", "preempted_requeued"):
        record = ended(version, name)
        assert record.submitted is not None
        found = newest([(record.id, record)], {record.id: record.submitted})
        assert not found[record.id].state.is_final


def test_array_elements_have_records_of_their_own(version: str) -> None:
    elements = [row for row in answer(version, "squeue_ended").rows if row.name == "array of three"]
    codes = {row.id.partition("_")[2]: answers.ended_job(row).exit_code for row in elements}
    assert codes == {"0": 0, "1": 1, "2": 2}


def test_every_captured_row_is_read_in_full(version: str) -> None:
    answered = [name for name in names(version, "squeue_") if captured(version, name).returncode == 0]
    rows: list[answers.QueueRow] = []
    for name in answered:
        read = answer(version, name)
        assert read.unreadable == 0
        rows += read.rows
    assert rows
    assert all(row.exit_status is not None and row.restarts is not None for row in rows)
    assert all(row.submitted and answers.state(row.word) is not JobState.UNKNOWN for row in rows)


@pytest.mark.parametrize("daemon", ["slurmctld_down", "munged_down", "no_configuration", "slurmctld_frozen"])
def test_without_an_answer_there_is_no_table(version: str, daemon: str) -> None:
    said = captured(version, f"squeue_{daemon}")
    assert said.returncode == 1
    with pytest.raises(ValueError, match="nothing"):
        answers.parse_squeue(said.stdout, DELIMITER)


def test_a_job_that_another_cluster_of_the_federation_has_is_still_listed(version: str) -> None:
    [row] = answer(version, "squeue_by_name").rows
    job = answers.live_job(replace(row, word="REVOKED"))
    assert (job.state, job.reason) == (JobState.REVOKED, "")
