"""What sacct of each version printed, as types."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from captured_slurm import DELIMITER, HOSTILE_NAMES, OUR_JOB, VERSIONS, captured, names
from fake_slurm import ACCOUNTING_HEADER, SUBMITTED, accounting_row, printed

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, JobState
from hpc_agent.schedulers.records import newest
from hpc_agent.schedulers.slurm import answers

of_each_version = pytest.mark.parametrize("version", VERSIONS)


def answer(version: str, name: str) -> answers.AccountingAnswer:
    return answers.parse_sacct(captured(version, name).stdout, DELIMITER)


def records(version: str, answered: str, name: str) -> list[JobRecord]:
    return [record for _, record in answer(version, answered).records if record.name == name]


def ended(version: str, name: str) -> JobRecord:
    [record] = records(version, "sacct_ended", name)
    return record


# ---------------------------------------------------------------- captured


@of_each_version
@pytest.mark.parametrize(
    ("name", "state", "exit_code", "signal"),
    [
        ("completed", JobState.COMPLETED, 0, 0),
        ("exit code 3", JobState.FAILED, 3, 0),
        ("signal 9", JobState.FAILED, 0, 9),
        ("cancelled before it ran", JobState.CANCELLED, 0, 0),
    ],
)
def test_records_are_read(version: str, name: str, state: JobState, exit_code: int, signal: int) -> None:
    record = ended(version, name)
    assert (record.state, record.exit_code, record.signal) == (state, exit_code, signal)


@of_each_version
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
    """With exit code 0:0, 0:9 or 1:0, as it happens."""
    assert ended(version, name).state is state


@of_each_version
def test_a_record_has_times_and_who_cancelled(version: str) -> None:
    record = ended(version, "cancelled_running")
    assert record.cancelled_by == "0"
    assert record.submitted is not None
    assert record.started is not None
    assert record.ended is not None
    assert record.submitted <= record.started <= record.ended <= record.submitted + timedelta(minutes=1)
    assert record.nodes in ("n1", "n2", "n3")


@of_each_version
def test_a_record_has_the_time_limit_in_seconds(version: str) -> None:
    names = ("time_limit", "completed", "preempts", "preempted")
    assert [ended(version, name).time_limit for name in names] == [60, 3600, None, 365 * 86400]


@of_each_version
def test_a_job_cancelled_before_it_ran_has_no_node(version: str) -> None:
    assert ended(version, "cancelled before it ran").nodes == ""


@of_each_version
def test_array_elements_have_records_of_their_own(version: str) -> None:
    elements = records(version, "sacct_ended", "array of three")
    codes = {record.id.partition("_")[2]: record.exit_code for record in elements}
    assert codes == {"0": 0, "1": 1, "2": 2}


@of_each_version
def test_elements_that_wait_are_one_row_and_no_job_of_their_own(version: str) -> None:
    read = answer(version, "sacct_live")
    of_array = {raw: record for raw, record in read.records if record.name == "array of three, one at once"}
    waiting = {raw: record for raw, record in of_array.items() if "[" in record.id}
    [(raw, record)] = waiting.items()
    assert record.id == f"{raw}_[2-3%1]"
    assert record.state is JobState.PENDING
    since = record.submitted
    assert since is not None
    assert newest(read.records, {JobId(f"{raw}_2"): since}) == {}
    assert newest(read.records, {raw: since}).keys() == {raw}


@of_each_version
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_may_hold_anything(version: str, name: str) -> None:
    """slurmdbd keeps 255 bytes or characters of it, with question marks for what its database cannot hold."""
    shown = HOSTILE_NAMES[name].strip()
    kept = {shown, shown[:255], shown.replace("\u2028", "?").replace("\x85", "?"), ascii_of(shown)}
    found = [record for _, record in answer(version, "sacct_live").records if record.name in kept]
    assert found
    assert all(record.state is JobState.PENDING for record in found)


def ascii_of(text: str) -> str:
    return text.encode("ascii", "replace").decode()


@of_each_version
def test_every_captured_row_is_read(version: str) -> None:
    answered = [name for name in names(version, "sacct_") if captured(version, name).returncode == 0]
    records = []
    for name in answered:
        read = answer(version, name)
        assert read.unreadable == 0
        records += [record for _, record in read.records]
    assert records
    assert all(record.submitted for record in records)
    assert not any(record.state is JobState.UNKNOWN for record in records)


@of_each_version
def test_unknown_jobs_give_no_records(version: str) -> None:
    for name in ("sacct_unknown", "sacct_unknown_name"):
        assert answer(version, name) == answers.AccountingAnswer((), 0)


@of_each_version
def test_a_job_is_found_by_its_name(version: str) -> None:
    assert [record.name for _, record in answer(version, "sacct_by_name").records] == [OUR_JOB]


@of_each_version
def test_only_final_records_are_verdicts(version: str) -> None:
    read = answer(version, "sacct_ended").records
    submitted = {raw: record.submitted for raw, record in read if record.submitted}
    final = {record.name for record in newest(read, submitted).values() if record.state.is_final}
    assert {"completed", "exit code 3", "cancelled_running", "node_failed", "preempted", "time_limit"} <= final
    assert not {"requeued", "preempted_requeued"} & final


@of_each_version
@pytest.mark.parametrize("daemon", ["slurmdbd_down", "munged_down", "disabled"])
def test_without_an_answer_there_is_no_table(version: str, daemon: str) -> None:
    said = captured(version, f"sacct_{daemon}")
    assert said.returncode != 0
    with pytest.raises(ValueError, match="nothing"):
        answers.parse_sacct(said.stdout, DELIMITER)


# ---------------------------------------------------------------- which record decides


def parsed(*rows: str) -> Sequence[tuple[JobId, JobRecord]]:
    return answers.parse_sacct(printed(ACCOUNTING_HEADER + "".join(rows), DELIMITER), DELIMITER).records


def row(job: str, state: str, after: timedelta = timedelta(), raw: str = "", name: str = OUR_JOB) -> str:
    return accounting_row(job, state, submitted=str(int((SUBMITTED + after).timestamp())), raw=raw, name=name)


def verdict(*rows: str, job: str = "7") -> JobRecord | None:
    found = newest(parsed(*rows), {JobId(job): SUBMITTED}).get(JobId(job))
    return found if found and found.state.is_final else None


def test_a_record_from_before_our_submission_is_of_another_job() -> None:
    old = row("7", "FAILED", timedelta(days=-400))
    assert verdict(old) is None
    found = verdict(old, row("7", "COMPLETED"))
    assert found is not None
    assert found.state is JobState.COMPLETED


def test_the_newest_record_decides_after_a_requeue() -> None:
    first = row("7", "NODE_FAIL")
    assert verdict(first, row("7", "PENDING", timedelta(minutes=2))) is None
    found = verdict(row("7", "COMPLETED", timedelta(minutes=2)), first)
    assert found is not None
    assert found.state is JobState.COMPLETED


def test_the_controllers_clock_may_be_a_little_behind_ours() -> None:
    assert verdict(row("7", "COMPLETED", timedelta(seconds=-2))) is not None


def test_a_record_can_be_asked_for_by_its_raw_id() -> None:
    found = verdict(row("5_3", "COMPLETED", raw="7"))
    assert found is not None
    assert found.id == "5_3"


def test_a_name_that_slurmdbd_does_not_know_yet_is_empty() -> None:
    found = verdict(row("7", "COMPLETED", name="allocation"))
    assert found is not None
    assert found.name == ""


def test_a_record_without_a_time_is_not_evidence() -> None:
    """It may be of an earlier job with this id."""
    assert verdict(accounting_row("7", "COMPLETED", submitted="long ago")) is None


@pytest.mark.parametrize("exit_code", ["", "?", "0", "0:0:0", ":", "9" * 400 + ":0", "-1:0"])
def test_an_exit_code_that_cannot_be_read_is_unknown(exit_code: str) -> None:
    [(_, record)] = parsed(accounting_row("7", "COMPLETED", exit_code=exit_code))
    assert record.state is JobState.COMPLETED
    assert (record.exit_code, record.signal) == ((0, 0) if exit_code == "0" else (None, 0))


@pytest.mark.parametrize("number", ["9" * 25, "9" * 400, "-5", "1e9", "٣"])
def test_a_time_beyond_all_clocks_is_unknown(number: str) -> None:
    [(_, record)] = parsed(accounting_row("7", "COMPLETED", submitted=number, limit=number))
    assert (record.submitted, record.time_limit) == (None, None)


@pytest.mark.parametrize("job", ["9" * 25, "7_", "_3", "7+", "-7", "7.batch", "seven", "7;8", "٣"])
def test_what_is_not_a_job_id_is_a_row_that_cannot_be_read(job: str) -> None:
    read = answers.parse_sacct(printed(accounting_row(job, "COMPLETED", raw="7"), DELIMITER), DELIMITER)
    assert (read.records, read.unreadable) == ((), 1)


@pytest.mark.parametrize("text", ["JobID|State\n", "sacct: hello\n", "1|1|RUNNING|0:0|1|1|1|1|n1|None|x\n", ""])
def test_what_is_not_a_table_is_not_read_as_one(text: str) -> None:
    with pytest.raises(ValueError, match=text.strip()[:5] or "nothing"):
        answers.parse_sacct(text, DELIMITER)
