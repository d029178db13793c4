"""Tables of squeue and sacct with any text of users and sites in and around them, whole or cut off."""

from __future__ import annotations

from dataclasses import dataclass

from exploring import examples
from fake_slurm import (
    ACCOUNTING_HEADER,
    CELL_END,
    OWN_HEADER,
    QUEUE_HEADER,
    SUBMITTED,
    accounting_row,
    own_row,
    printed,
    queue_row,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobState
from hpc_agent.schedulers.records import newest
from hpc_agent.schedulers.slurm import answers
from hpc_agent.schedulers.slurm.delimited_table import new_delimiter

DELIMITER = new_delimiter()
LINE_ENDS = "\n\r\f\v\x1c\x1d\x1e\x85\u2028\u2029"
FORGERIES = (
    *("1001", "\n1001", "\n1001   |RUNNING", "\nJOBID"),
    *(printed(row("1001", "FAILED"), new_delimiter()) for row in (queue_row, accounting_row)),
)
STATES = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "FAILED", "NODE_FAIL")

texts = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from(LINE_ENDS + "|0123456789 "),
    max_size=40,
)
names = texts | st.sampled_from(FORGERIES) | st.builds("{}{}".format, texts, st.sampled_from(FORGERIES))
reasons = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=20)
notices = st.just("") | st.builds("{}\n".format, texts)
"""Whole lines, as a wrapper prints them."""


@dataclass(frozen=True)
class Job:
    id: str
    state: str
    name: str
    reason: str


@st.composite
def jobs(draw: st.DrawFn) -> list[Job]:
    ids = draw(st.lists(st.integers(1, 10**9).map(str) | st.just("77_3"), unique=True, max_size=6))
    return [Job(id, draw(st.sampled_from(STATES)), draw(names), draw(reasons)) for id in ids]


@st.composite
def surrounded(draw: st.DrawFn, header: str, rows: list[str]) -> str:
    """A table with notices before, between and after its rows."""
    return "".join(draw(notices) + part for part in (header, *rows)) + draw(notices)


def queue_rows(jobs: list[Job]) -> list[str]:
    return [queue_row(job.id, job.state, name=job.name, reason=job.reason) for job in jobs]


def accounting_rows(jobs: list[Job]) -> list[str]:
    return [accounting_row(job.id, job.state, name=job.name, reason=job.reason) for job in jobs]


def seen(job: Job) -> tuple[str, str, str, str]:
    return job.id, job.state, job.name.strip(), job.reason.strip()


def queued(answer: answers.QueueAnswer) -> list[tuple[str, str, str, str]]:
    return [(row.id, row.word, row.name, row.reason) for row in answer.rows]


@examples(100)
@given(st.data(), jobs())
def test_squeue_is_read_whatever_is_in_it_and_around_it(data: st.DataObject, jobs: list[Job]) -> None:
    table = data.draw(surrounded(QUEUE_HEADER, queue_rows(jobs)))
    answer = answers.parse_squeue(printed(table, DELIMITER), DELIMITER)
    assert queued(answer) == [seen(job) for job in jobs]
    assert all(row.submitted == SUBMITTED and row.exit_status == (0, 0) and row.nodes == "n1" for row in answer.rows)
    assert answer.unreadable == 0


@examples(100)
@given(st.data(), jobs())
def test_sacct_is_read_whatever_is_in_it_and_around_it(data: st.DataObject, jobs: list[Job]) -> None:
    table = data.draw(surrounded(ACCOUNTING_HEADER, accounting_rows(jobs)))
    answer = answers.parse_sacct(printed(table, DELIMITER), DELIMITER)
    assert [(raw, record.raw_state) for raw, record in answer.records] == [(job.id, job.state) for job in jobs]
    known_names = [job.name.strip() if job.name.strip() != "allocation" else "" for job in jobs]
    assert [record.name for _, record in answer.records] == known_names
    assert all(record.submitted == SUBMITTED and record.time_limit == 3600 for _, record in answer.records)
    assert answer.unreadable == 0


@examples(100)
@given(st.data(), jobs(), st.floats(0, 1))
def test_an_answer_that_is_cut_off_has_no_wrong_row_and_says_so(
    data: st.DataObject, jobs: list[Job], part: float
) -> None:
    table = printed(data.draw(surrounded(QUEUE_HEADER, queue_rows(jobs))), DELIMITER)
    text = table[: int(len(table) * part)]
    try:
        answer = answers.parse_squeue(text, DELIMITER)
    except ValueError:
        return
    assert queued(answer) == [seen(job) for job in jobs][: len(answer.rows)]
    # Between two rows a cut leaves no trace.
    rest = text.rpartition(DELIMITER)[2]
    assume(any(character.isdigit() for character in rest.rpartition("\n")[2]) or text.count(DELIMITER) % 10)
    assert len(answer.rows) == len(jobs) or answer.unreadable


@examples(100)
@given(jobs(), st.data())
def test_a_line_that_lost_some_of_its_cells_hides_no_other_job(jobs: list[Job], data: st.DataObject) -> None:
    """But for the last one it is cut in the middle of a column that holds no line break."""
    assume(jobs)
    rows = queue_rows(jobs)
    victim = data.draw(st.integers(0, len(rows) - 1))
    cells = rows[victim].split(CELL_END)
    rows[victim] = CELL_END.join(cells[: data.draw(st.integers(1, 8))]) + f"{CELL_END}\n"
    answer = answers.parse_squeue(printed(QUEUE_HEADER + "".join(rows), DELIMITER), DELIMITER)
    assert queued(answer) == [seen(job) for job in jobs if job is not jobs[victim]]
    assert answer.unreadable


@examples(100)
@given(jobs(), st.data(), texts)
def test_a_job_id_that_cannot_be_read_never_makes_a_job_count_as_gone(
    jobs: list[Job], data: st.DataObject, foreign: str
) -> None:
    assume(jobs)
    victim = data.draw(st.sampled_from(jobs))
    rows = [
        row if job is not victim else row.replace(job.id, f"{job.id}{foreign.strip()}x", 1)
        for job, row in zip(jobs, queue_rows(jobs), strict=True)
    ]
    answer = answers.parse_squeue(printed(QUEUE_HEADER + "".join(rows), DELIMITER), DELIMITER)
    assert queued(answer) == [seen(job) for job in jobs if job is not victim]
    assert answer.unreadable == 1


@examples(100)
@given(texts)
def test_no_notice_is_taken_for_a_table(notice: str) -> None:
    for parse in (answers.parse_squeue, answers.parse_sacct, answers.parse_own_job):
        try:
            parse(notice, DELIMITER)
        except ValueError:
            continue
        raise AssertionError(f"{parse.__name__} read {notice!r}")


@examples(100)
@given(notices, names)
def test_a_job_that_asks_about_itself_gets_the_truth(notice: str, reason: str) -> None:
    table = printed(notice, DELIMITER) + printed(OWN_HEADER + own_row("7", "RUNNING", reason=reason), DELIMITER)
    job = answers.parse_own_job(table, DELIMITER)
    assert (job.state, job.left, job.restarts, job.preempted) == (JobState.RUNNING, 3599, 0, False)


@examples(100)
@given(jobs())
def test_a_record_is_only_found_for_the_job_whose_it_is(jobs: list[Job]) -> None:
    answer = answers.parse_sacct(printed(ACCOUNTING_HEADER + "".join(accounting_rows(jobs)), DELIMITER), DELIMITER)
    wanted = {JobId(job.id): SUBMITTED for job in jobs} | {JobId("1001"): SUBMITTED}
    found = newest(answer.records, wanted)
    assert {job: record.raw_state for job, record in found.items()} == {job.id: job.state for job in jobs}
