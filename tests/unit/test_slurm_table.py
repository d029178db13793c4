"""Rows and cells of squeue and sacct, whatever is in them and around them."""

from __future__ import annotations

import pytest
from fake_slurm import QUEUE_HEADER, accounting_row, printed, queue_row

from hpc_agent.schedulers.slurm import answers
from hpc_agent.schedulers.slurm.delimited_table import new_delimiter, read_table

D = "|d|"
HEADER = "JOBID   |d|STATE   |d|NAME   |d|\n"
ROW = "7   |d|RUNNING   |d|name   |d|\n"
OTHER = "8   |d|PENDING   |d|other   |d|\n"
CELLS = ("7", "RUNNING", "name")
OTHERS_CELLS = ("8", "PENDING", "other")
NOTICE = "*** 4711 nodes are down for maintenance ***\n"


def rows(answer: str) -> tuple[tuple[str, ...], ...]:
    """Of an answer in which nothing is broken."""
    table = read_table(answer, 3, D)
    assert table is not None
    assert table.broken == 0
    return table.rows


def test_no_two_tables_have_the_same_delimiter() -> None:
    assert len({new_delimiter() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "answer",
    [
        HEADER + ROW + OTHER,
        ROW + OTHER,
        NOTICE + HEADER + ROW + OTHER,
        HEADER + NOTICE + ROW + OTHER,
        HEADER + ROW + NOTICE + OTHER,
        HEADER + ROW + OTHER + NOTICE,
        "Welcome! " + HEADER + "Hello " + ROW + "4711 " + OTHER,
        "Welcome!" + HEADER + ROW + OTHER,
        "\n\n" + HEADER + "\n" + ROW + "\n\n" + OTHER + "\n",
        (HEADER + ROW + OTHER).replace("\n", "\r\n"),
        (HEADER + ROW + OTHER).removesuffix("\n"),
        (HEADER + ROW + OTHER).replace("   ", " "),
        (HEADER + ROW + OTHER).replace("   ", ""),
        "CLUSTER: alpha\n" + HEADER + ROW + OTHER,
        HEADER + ROW + OTHER + "Total: 2 jobs",
        HEADER + ROW + OTHER + "\x1b[0m",
    ],
)
def test_rows_are_found_among_what_else_is_printed(answer: str) -> None:
    assert rows(answer) == (CELLS, OTHERS_CELLS)


def test_no_jobs_are_a_header_and_nothing_else() -> None:
    assert rows(HEADER) == ()
    assert rows(NOTICE + HEADER + NOTICE) == ()


@pytest.mark.parametrize(
    "answer", ["", "\n", NOTICE, "<html>502 Bad Gateway</html>", HEADER[:-4], "JOBID STATE NAME\n"]
)
def test_without_header_and_rows_it_is_not_a_table(answer: str) -> None:
    assert read_table(answer, 3, D) is None


@pytest.mark.parametrize(
    "name", ["a\nb", "9\n", "\n\n9", "x\n9   |x|RUNNING   |x|name   |x|\n", "JOBID", "", "a\fb\u2028c"]
)
def test_a_name_cannot_look_like_a_row(name: str) -> None:
    answer = HEADER + ROW.replace("name", name) + OTHER
    assert rows(answer) == ((*CELLS[:2], name.strip()), OTHERS_CELLS)


def test_a_job_id_that_is_glued_to_a_notice_is_a_row_anyway() -> None:
    """So that its job is known to be there, whatever its id."""
    assert rows("Welcome!" + ROW + OTHER) == (("Welcome!7", *CELLS[1:]), OTHERS_CELLS)


def test_a_line_that_was_cut_short_is_a_broken_row_and_the_others_are_read() -> None:
    table = read_table(HEADER + ROW + "9   |d|RUNN\n" + OTHER, 3, D)
    assert table is not None
    assert (table.rows, table.broken) == ((CELLS, OTHERS_CELLS), 1)


def test_lines_cut_within_the_names_hide_no_job_in_silence() -> None:
    """A name without its delimiter takes in the next row's id."""
    lines = printed(QUEUE_HEADER + "".join(queue_row(str(n), "RUNNING", name="long" * 64) for n in range(6)), D)
    answer = answers.parse_squeue("\n".join(line[:-50] for line in lines.splitlines()) + "\n", D)
    assert all((row.word, row.nodes, row.restarts) == ("RUNNING", "n1", 0) for row in answer.rows)
    assert len(answer.rows) < 6
    assert answer.unreadable


def test_an_answer_cut_anywhere_has_only_whole_rows_and_says_that_more_may_be_missing() -> None:
    answer = HEADER + ROW + OTHER
    tables = {length: table for length in range(len(answer)) if (table := read_table(answer[:length], 3, D))}
    assert {len(table.rows) for table in tables.values()} == {0, 1, 2}
    for length, table in tables.items():
        assert table.rows == (CELLS, OTHERS_CELLS)[: len(table.rows)]
        is_cut_between_rows = answer[:length].endswith((D, "\n"))
        assert len(table.rows) == 2 or table.broken or is_cut_between_rows


def test_squeue_cut_anywhere_never_says_in_silence_that_a_job_is_gone() -> None:
    whole = printed(QUEUE_HEADER + queue_row("7", "RUNNING", name="a\nb") + queue_row("8", "PENDING"), D)
    known = answers.parse_squeue(whole, D).rows
    read = []
    for length in range(len(whole)):
        try:
            answer = answers.parse_squeue(whole[:length], D)
        except ValueError:
            continue
        read.append(len(answer.rows))
        assert answer.rows == known[: len(answer.rows)]
        assert len(answer.rows) == 2 or answer.unreadable or whole[:length].endswith((D, "\n"))
    assert {*read} == {0, 1, 2}


def test_a_row_whose_id_cannot_be_read_is_counted() -> None:
    answer = printed(QUEUE_HEADER + queue_row("7", "RUNNING") + queue_row("seven", "RUNNING"), D)
    read = answers.parse_squeue(answer, D)
    assert ([row.id for row in read.rows], read.unreadable) == (["7"], 1)


def test_a_record_whose_raw_id_cannot_be_read_is_counted() -> None:
    answer = printed(accounting_row("7", "COMPLETED", raw="?") + accounting_row("8", "COMPLETED"), D)
    read = answers.parse_sacct(answer, D)
    assert ([job for job, _ in read.records], read.unreadable) == (["8"], 1)
