"""Rows of the table of jobs: states, order, reasons in words, filters, and the table on narrow terminals."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from hpc_agent.cli.jobs import table_of
from hpc_agent.cli.table import one_line
from hpc_agent.domain.ids import JobId, TaskId
from hpc_agent.domain.job import JobState, LiveJob
from hpc_agent.inspection.task_row import RowFilter, TaskRow, ordered, row_of_jobs, summary
from hpc_agent.schedulers.inspector import ListedJob
from hpc_agent.schedulers.slurm.wait_reasons import meaning

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
TASK = TaskId("3f2a91c4" + "0" * 24)


def listed(state: JobState, number: str = "7", reason: str = "") -> ListedJob:
    job = LiveJob(JobId(number), "job", state, state.value, reason, waits=meaning(reason, JobId(number)))
    return ListedJob(job, "main", 60 if state is JobState.RUNNING else None, 600)


def test_a_waiting_job_shows_the_reason_in_words_of_how_it_was_submitted() -> None:
    waits = listed(JobState.PENDING, reason="PartitionTimeLimit")
    row = row_of_jobs(TASK, [waits])
    assert (row.state, row.reason) == ("pending", "PartitionTimeLimit")
    assert row.why.endswith("ask for less with time_limit")
    assert row_of_jobs(TASK, [waits], kind="script").why.endswith("ask for less with --time")
    unknown = row_of_jobs(TASK, [listed(JobState.PENDING, reason="SomethingNew")])
    assert unknown.why == "SomethingNew"


def test_an_array_shows_what_runs_and_counts_the_rest() -> None:
    jobs = [
        listed(JobState.PENDING, "7_1", "Priority"),
        listed(JobState.RUNNING, "7_0"),
        listed(JobState.RUNNING, "7_2"),
    ]
    row = row_of_jobs(TASK, jobs, kind="script", job="7")
    assert (row.job, row.state, row.used_seconds, row.why) == ("7", "running", 60, "2 running, 1 pending")


def test_a_state_that_this_version_does_not_know_is_shown_as_it_is() -> None:
    job = LiveJob(JobId("7"), "job", JobState.UNKNOWN, "STAGE_OUT")
    assert row_of_jobs(TASK, [ListedJob(job)]).state == "stage_out"


def test_rows_come_in_the_order_in_which_they_are_looked_for() -> None:
    def row(name: str, state: str, **fields: object) -> TaskRow:
        return replace(TaskRow(TaskId(name), name=name, state=state), **fields)

    rows = [
        row("ended", "failed", ended="2026-01-31T10:00:00"),
        row("later", "pending", expected_start=NOW + timedelta(hours=2), job="3"),
        row("ended last", "completed", ended="2026-01-31T11:00:00"),
        row("second in queue", "queued", queue="q", place=2),
        row("unknown", "pending", job="1"),
        row("first in queue", "queued", queue="q", place=1),
        row("soon", "pending", expected_start=NOW + timedelta(hours=1), job="4"),
        row("runs", "running", job="12"),
        row("runs longer", "running", job="9"),
    ]
    names = ["runs longer", "runs", "soon", "later", "unknown", "first in queue", "second in queue"]
    assert [found.name for found in ordered(rows)] == [*names, "ended last", "ended"]
    assert summary(rows) == "2 running, 3 pending, 2 queued, 1 completed, 1 failed"


@pytest.mark.parametrize(
    ("wanted", "accepted"),
    [
        (RowFilter(), True),
        (RowFilter(queues=("gpu",)), True),
        (RowFilter(queues=("cpu",)), False),
        (RowFilter(states=("running", "pending")), True),
        (RowFilter(states=("pending",)), False),
        (RowFilter(name="RESNET"), True),
        (RowFilter(name="vit"), False),
    ],
)
def test_filters(wanted: RowFilter, accepted: bool) -> None:
    assert wanted.accepts(TaskRow(TASK, name="train resnet", queue="gpu", state="running")) is accepted


ROW = TaskRow(
    TASK,
    name="train resnet with a long name",
    queue="gpu",
    job="812",
    state="pending",
    why="Resources: it is next, once enough is free",
    expected_start=NOW + timedelta(days=1),
    limit_seconds=3600,
    gpu_percent=97.4,
)


def plain(line: str) -> str:
    import click

    return click.unstyle(line)


def test_a_pipe_gets_all_columns_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    head, line = map(plain, table_of([ROW], NOW))
    assert head.split() == ["TASK", "NAME", "QUEUE", "JOB", "STATE", "TIME/LIMIT", "START", "GPU", "WHY"]
    assert "train resnet with a long name" in line and ROW.why in line and "-/01:00:00" in line and "97%" in line


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_no_line_is_longer_than_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = [plain(line) for line in table_of([ROW, replace(ROW, name="b", state="running", job="9")], NOW)]
    assert max(map(len, lines)) <= width, lines
    assert ("QUEUE" in lines[0]) == (width >= 110)
    assert all("812" in lines[1] and found in lines[1] for found in ("3f2a91c4", "pending"))
    assert ("WHY" in lines[0]) == (width >= 80)
    assert ROW.why[:20] in lines[1 if width >= 80 else 2]


def test_columns_that_fit_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal of the usual width the node of a job that runs is not left out for the reason of none."""
    monkeypatch.setenv("COLUMNS", "80")
    runs = TaskRow(TaskId("3f2a91c4" * 4), "train", "gpu", job="9", state="running", nodes="n1", used_seconds=60)
    runs = replace(runs, limit_seconds=7200)
    head, line = map(plain, table_of([runs], NOW))
    assert head.split() == ["TASK", "NAME", "QUEUE", "JOB", "STATE", "TIME/LIMIT", "NODE"]
    assert line.endswith("  n1")
    waits = replace(runs, job="10", state="pending", nodes="", why="Resources: it is next, once enough is free")
    head, _, line = map(plain, table_of([runs, waits], NOW))
    assert "NODE" not in head and "Resources: it is next" in line


def test_a_name_cannot_steer_the_terminal() -> None:
    assert one_line("a\x1b[2Jb\nc\x07") == "a[2Jb c"
