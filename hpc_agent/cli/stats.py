"""``hpc-agent stats``: how many requests each day or hour made to the scheduler and to the ClearML server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.period_option import parse_period
from hpc_agent.cli.shared_options import HELP, Shared, pass_shared

if TYPE_CHECKING:
    from hpc_agent.request_counts import DayCounts

_SHOWN = 4
"""Kinds of requests in a row of the table."""


@click.command(context_settings=HELP)
@click.option(
    "--last",
    default="7d",
    show_default=True,
    metavar="PERIOD",
    callback=parse_period,
    help="24h, 7d or 2w; whole days.",
)
@click.option("--by-program", is_flag=True, help="A row for each command that made them (daemon, execute …).")
@click.option("--by-hour", is_flag=True, help="A row for each hour in which there were any.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per day (or hour) and command.")
@pass_shared
def command(shared: Shared, last: timedelta, by_program: bool, by_hour: bool, as_json: bool) -> None:
    """Show how many requests to the scheduler and to the server each day, or hour, made.

    All hpc-agent commands of this hpc.root are counted, on login and compute nodes; what tasks do themselves is not.
    """
    import msgspec

    from hpc_agent.clock import SYSTEM
    from hpc_agent.request_counts import KEPT_DAYS, read_counts

    today = SYSTEM.now().astimezone().date()
    days = min(max(last.days, 1), KEPT_DAYS)
    folder, since = shared.stats_folder(shared.configuration()), today - timedelta(days=days - 1)
    found = read_counts(folder, since, by_hour=by_hour)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
    elif not found:
        click.echo(f"No requests were counted in the last {days} day{'s' * (days != 1)}", err=True)
    else:
        _print(found, by_program)


def _print(found: Sequence[DayCounts], by_program: bool) -> None:
    from hpc_agent.cli.table import Column, number, print_table, text

    sums: dict[tuple[str, str], tuple[Counter[str], Counter[str]]] = {}
    for row in found:
        when = f"{row.day} {row.hour}:00" if row.hour else row.day
        scheduler, server = sums.setdefault((when, row.program if by_program else ""), (Counter(), Counter()))
        scheduler.update(row.scheduler)
        server.update(row.server)
    columns = [
        Column("DAY"),
        Column("COMMAND"),
        number("SCHEDULER"),
        text("OF THESE"),
        number("SERVER"),
        text("OF THESE "),
    ]
    print_table(columns, [[day, program, *_cells(*both)] for (day, program), both in sums.items()])


def _cells(scheduler: Counter[str], server: Counter[str]) -> list[str]:
    return [str(scheduler.total()), _most(scheduler), str(server.total()), _most(server)]


def _most(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.most_common(_SHOWN))
