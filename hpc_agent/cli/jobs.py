"""``hpc-agent jobs``: your tasks and their jobs in one table."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.period_option import parse_period
from hpc_agent.cli.shared_options import HELP, FiniteRange, Shared, pass_shared
from hpc_agent.cli.table import Column, number, one_line, room, table_lines, text
from hpc_agent.cli.waiting_note import waiting_note
from hpc_agent.domain.duration import format_duration
from hpc_agent.inspection import task_row
from hpc_agent.inspection.task_row import RowFilter, TaskRow

if TYPE_CHECKING:
    from hpc_agent.inspection.jobs_observer import JobsTable

_LEAST_INTERVAL_S, _MOST_INTERVAL_S = 2.0, 86400.0
"""Each redraw is one request to the controller."""
_COLOURS = {
    task_row.RUNNING: "green",
    task_row.PENDING: "yellow",
    task_row.QUEUED: "yellow",
    task_row.REQUEUED: "yellow",
    task_row.MISSING: "red",
    task_row.SUBMITTING: "red",
    "failed": "red",
}
_READABLE = {"NAME": 16, "WHY": 24}
"""Characters of these columns that are shown before another column is."""


def _states(_context: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    wanted = [word for value in values for word in value.lower().split(",") if word]
    for word in wanted:
        if word not in task_row.STATES:
            raise click.BadParameter(f"{word!r} is none of {', '.join(task_row.STATES)}", param=option)
    return tuple(wanted)


@click.command(context_settings=HELP)
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Of this queue only; may be repeated.")
@click.option(
    "--state",
    "states",
    multiple=True,
    callback=_states,
    metavar="STATE",
    help="In this state only, such as running, pending or failed; may be repeated.",
)
@click.option("--name", default="", metavar="TEXT", help="With this text in the task's name.")
@click.option(
    "--ended",
    is_flag=False,
    flag_value="1d",
    callback=parse_period,
    metavar="[PERIOD]",
    help="Show tasks too that ended within this time, such as 12h or 7d (default: 1d).",
)
@click.option(
    "--watch",
    is_flag=False,
    flag_value=5.0,
    type=FiniteRange(_LEAST_INTERVAL_S, _MOST_INTERVAL_S),
    metavar="[SECONDS]",
    help="Draw the table again every so many seconds (default: 5) until Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_shared
def command(
    shared: Shared,
    queues: Sequence[str],
    states: Sequence[str],
    name: str,
    ended: timedelta | None,
    watch: float | None,
    as_json: bool,
) -> None:
    """Show your tasks and their jobs: what runs, what waits and why, when it is expected to start.

    Tasks from queues and jobs of hpc-agent sbatch are in one table, with one request to the scheduler however many
    there are. The words of the first columns are understood by hpc-agent why, logs and cancel.
    """
    from hpc_agent.cli.inspection_options import inspect_site

    if as_json and watch is not None:
        raise click.UsageError("--json prints one object and --watch never ends: give one of the two")
    if ended is None and set(states) & set(task_row.ENDED):
        ended = timedelta(days=1)
    site = inspect_site(shared)
    with waiting_note():
        names = site.queue_names(queues)
    observer = site.observer(names)
    wanted = RowFilter(names, states, name)

    def look() -> tuple[JobsTable, list[TaskRow]]:
        table = observer.observe(ended_within=ended)
        return table, [row for row in table.rows if wanted.accepts(row)]

    if watch is not None:
        _watch(look, watch)
        return
    with waiting_note():
        table, rows = look()
    if as_json:
        click.echo(json.dumps({"jobs": [row.as_json() for row in rows], "notes": table.notes}, indent=2))
        return
    for note in table.notes:
        click.echo(one_line(note), err=True)
    if not rows:
        without = "No jobs are known without that answer" if table.notes else "No jobs"
        if not table.notes and not observer.has_queues:
            without += "; no daemon serves a queue here: --queue NAME shows what waits in one"
        click.echo(f"No jobs of that kind; there are {task_row.summary(table.rows)}" if table.rows else without)
        return
    for line in table_of(rows, table.at):
        click.echo(line)
    if sys.stdout.isatty():
        click.echo(click.style(task_row.summary(rows), dim=True))


Look = Callable[[], "tuple[JobsTable, list[TaskRow]]"]


def _watch(look: Look, seconds: float) -> None:
    """Redraw in place on a terminal; elsewhere print one table after the other. An outage ends nothing."""
    from hpc_agent.clock import SYSTEM
    from hpc_agent.errors import ApiError, SchedulerUnavailableError, ServerUnreachableError

    in_place = sys.stdout.isatty()
    lines: list[str] = []
    try:
        while True:
            try:
                lines = _screen(*look(), seconds)
            except (ServerUnreachableError, ApiError, SchedulerUnavailableError) as error:
                lines = [click.style(one_line(f"No answer, trying again: {error}"), fg="red"), *lines[1:]]
            if in_place:
                rows = shutil.get_terminal_size().lines
                shown = lines if len(lines) < rows else [*lines[: rows - 2], f"… and {len(lines) - rows + 2:,} more"]
                # From the top left corner, each line's rest and the screen's rest cleared: it does not flicker.
                click.echo("\x1b[H" + "\x1b[K\n".join(shown) + "\x1b[K\x1b[J")
            else:
                click.echo("\n".join(lines) + "\n")
            SYSTEM.sleep(seconds)
    except KeyboardInterrupt:
        return


def _screen(table: JobsTable, rows: Sequence[TaskRow], seconds: float) -> list[str]:
    head = f"{table.at.astimezone():%H:%M:%S}  {task_row.summary(rows) or 'No jobs'}"
    lines = [click.style(f"{head}  (every {seconds:g} s, Ctrl-C ends)", dim=True)]
    lines += [click.style(one_line(note), fg="red") for note in table.notes]
    return lines + (table_of(rows, table.at) if rows else [])


def table_of(rows: Sequence[TaskRow], now: datetime) -> list[str]:
    """The table's lines, as many columns as the terminal has room for; all of them where there is no terminal.

    In a very narrow one the reason is below its row.
    """
    columns = [(column, [cell(row, now) for row in rows], rank) for rank, column, cell in _COLUMNS]
    shown = [each for each in columns if any(each[1])]
    while (width := room()) is not None and _least_width(shown) > width and any(rank for *_, rank in shown):
        shown.remove(max(shown, key=lambda each: each[2]))
    notes: Sequence[str] = ()
    if width is not None and _least_width(shown) > width and shown[-1][0].title == "WHY":
        notes = shown.pop()[1]
    return table_lines(
        [column for column, *_ in shown], list(zip(*(cells for _, cells, _ in shown), strict=True)), notes
    )


def _least_width(columns: Sequence[tuple[Column, Sequence[str], int]]) -> int:
    """In which names and reasons can be understood, and the rest is whole."""
    widths = [
        min(max(map(len, (column.title, *cells))), _READABLE.get(column.title, 1000)) for column, cells, _ in columns
    ]
    return sum(widths) + 2 * (len(widths) - 1)


def _state_style(state: str) -> str:
    return click.style(state, fg=_COLOURS.get(state))


def _short_id(row: TaskRow, _now: datetime) -> str:
    return row.task[:8]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}%"


def _time(row: TaskRow, _now: datetime) -> str:
    if row.used_seconds is None and row.limit_seconds is None:
        return ""
    used = format_duration(row.used_seconds) if row.used_seconds is not None else "-"
    return used if row.limit_seconds is None else f"{used}/{format_duration(row.limit_seconds)}"


def _start(row: TaskRow, now: datetime) -> str:
    return "" if row.expected_start is None else short_time(row.expected_start, now)


def short_time(moment: datetime, now: datetime) -> str:
    """In the local time zone; without the date where it is today's."""
    local, today = moment.astimezone(), now.astimezone()
    return f"{local:%H:%M}" if local.date() == today.date() else f"{local:%m-%d %H:%M}"


def _ended(row: TaskRow, now: datetime) -> str:
    try:
        return short_time(datetime.fromisoformat(row.ended.replace("Z", "+00:00")), now)
    except ValueError:
        return row.ended


_Cell = Callable[[TaskRow, datetime], str]
_COLUMNS: Sequence[tuple[int, Column, _Cell]] = (
    (0, Column("TASK"), _short_id),
    (0, text("NAME"), lambda row, _: row.name),
    (1, text("QUEUE"), lambda row, _: row.queue),
    (0, Column("JOB"), lambda row, _: row.job),
    (0, Column("STATE", style=_state_style), lambda row, _: row.state),
    (2, Column("TIME/LIMIT"), _time),
    (0, Column("START"), _start),
    (0, Column("ENDED"), _ended),
    (3, text("NODE"), lambda row, _: row.nodes),
    (4, number("GPU"), lambda row, _: _percent(row.gpu_percent)),
    (5, number("CPU"), lambda row, _: _percent(row.cpu_percent)),
    (0, text("WHY"), lambda row, _: row.why),
)
"""Rank, column, cell: in a narrow terminal columns are left out from the highest rank on, 0 never."""
