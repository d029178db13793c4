"""``hpc-agent efficiency``: what tasks used of what they asked for, summed up by queue, user and name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click
import msgspec

from hpc_agent.cli.period_option import parse_period
from hpc_agent.cli.shared_options import HELP, Shared, pass_shared

if TYPE_CHECKING:
    from hpc_agent.api.client import Client
    from hpc_agent.config.settings import AllSettings
    from hpc_agent.domain.efficiency import Efficiency, Total
    from hpc_agent.wire.ended_task import EndedTask

_KEYS = ("queue", "user", "name")
_PROGRESS_AFTER_S = 2.0

Group = tuple[str, ...]


def parse_keys(_context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    """
    Raises:
        InputError: one of them is not a key.
    """
    from hpc_agent.errors import InputError

    keys = tuple(key.strip() for key in value.split(",") if key.strip())
    wrong = [key for key in keys if key not in _KEYS]
    if wrong or not keys or len(set(keys)) < len(keys):
        raise InputError(f'{option.opts[0]} is "{value}", expected one or more of {", ".join(_KEYS)} with commas')
    return keys


@click.command(context_settings=HELP)
@click.option(
    "--last", default="7d", show_default=True, metavar="PERIOD", callback=parse_period, help="30m, 12h, 7d or 2w."
)
@click.option("--queue", metavar="QUEUE", help="Only tasks that came from this queue (name or id).")
@click.option(
    "--by",
    default=",".join(_KEYS),
    show_default=True,
    metavar="KEYS",
    callback=parse_keys,
    help="Sum up by these, with commas.",
)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(0), help="Rows; 0 shows all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per group.")
@pass_shared
def command(shared: Shared, last: timedelta, queue: str | None, by: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show how much of what tasks asked for they used.

    Each task reports its use at its end; where it could not, sacct is asked. Percentages are means, weighted with the
    time that the tasks ran.
    """
    from hpc_agent.api.task_history import ended_tasks
    from hpc_agent.clock import SYSTEM
    from hpc_agent.domain.efficiency import total
    from hpc_agent.retry import INTERACTIVE

    configuration = shared.configuration()
    client = shared.client(configuration, INTERACTIVE)
    since = SYSTEM.now() - last
    chosen = client.queues.resolve(queue) if queue else None
    # Each once: where tasks end between two pages, those of the first come again in the second.
    found = {task.id: task for task in _with_progress(ended_tasks(client.session, since, chosen))}
    tasks = list(found.values())
    runs = _measured(tasks, configuration.settings, since)
    groups = _groups(client, tasks, runs, by)
    ordered = sorted(groups.items(), key=lambda item: (-sum(_seconds(run) for run in item[1]), item[0]))
    totals = [(group, total(each)) for group, each in ordered]
    if as_json:
        click.echo(json.dumps([_as_json(by, group, sums) for group, sums in totals], indent=2))
        return
    if not totals:
        where = f' from queue "{queue}"' if queue else ""
        click.echo(f"No task{where} with figures of its use ended since {since.astimezone():%Y-%m-%d %H:%M}", err=True)
        return
    _print(by, totals[: limit or None], total(runs.values()))
    if left := len(totals) - len(totals[: limit or None]):
        click.echo(f"{left} more: --limit 0 shows all", err=True)
    if unknown := len(tasks) - len(runs):
        click.echo(
            f"{unknown} of {len(tasks)} tasks have no figures: they never ran, or not through hpc-agent", err=True
        )


def _with_progress(pages: Iterable[list[EndedTask]]) -> Iterable[EndedTask]:
    """What was read so far, on a terminal, where it takes long."""
    from hpc_agent.clock import SYSTEM

    began, count = SYSTEM.monotonic(), 0
    for page in pages:
        yield from page
        count += len(page)
        if sys.stderr.isatty() and SYSTEM.monotonic() - began > _PROGRESS_AFTER_S:
            click.echo(f"\r{count} tasks read …", nl=False, err=True)
    if sys.stderr.isatty() and SYSTEM.monotonic() - began > _PROGRESS_AFTER_S:
        click.echo("\r" + " " * 40 + "\r", nl=False, err=True)


def _measured(tasks: Sequence[EndedTask], settings: AllSettings, since: datetime) -> dict[str, Efficiency]:
    """Task → its use: as it said itself, else as accounting knows it."""
    from hpc_agent.clock import SYSTEM
    from hpc_agent.domain.efficiency import JOB, from_properties
    from hpc_agent.errors import SchedulerUnavailableError
    from hpc_agent.schedulers import backends

    found: dict[str, Efficiency] = {}
    missing: dict[str, EndedTask] = {}
    for task in tasks:
        own = from_properties(task.properties)
        # A clone has the figures of its original until it has run itself.
        if own is not None and task.properties.get(JOB, task.job).split(" ")[0] == task.job:
            found[task.id] = own
        elif task.job:
            missing[task.id] = task
    if not missing:
        return found
    inspector = backends.inspector(settings.hpc, SYSTEM)
    try:
        # Long jobs began before.
        usage = inspector.usage(sorted({task.job for task in missing.values()}), since - timedelta(days=30))
    except SchedulerUnavailableError as error:
        click.echo(f"warning: {len(missing)} tasks are left out, accounting gave no answer: {error}", err=True)
        return found
    for task in missing.values():
        accounted = usage.get(task.job)
        if accounted is not None and _is_of(accounted.name, task):
            found[task.id] = accounted.efficiency
    return found


def _is_of(job_name: str, task: EndedTask) -> bool:
    """Whether a job with the id that a task names is the task's: ids are used again, and mean nothing elsewhere."""
    from hpc_agent.domain.attempt import parse_job_name
    from hpc_agent.wire.task_state import JOB_PROPERTY

    # A job of `hpc-agent sbatch` has a name of its own.
    attempt = parse_job_name(job_name)
    return task.properties.get(JOB_PROPERTY) == task.job or (attempt is not None and attempt.task == task.id)


def _groups(
    client: Client, tasks: Sequence[EndedTask], runs: Mapping[str, Efficiency], by: Sequence[str]
) -> dict[Group, list[Efficiency]]:
    from hpc_agent.api.task_history import names_of

    measured = [task for task in tasks if task.id in runs]
    queues = names_of(client.session, "queues.get_all", [t.queue for t in measured]) if "queue" in by else {}
    users = names_of(client.session, "users.get_all", [t.user for t in measured]) if "user" in by else {}
    groups: dict[Group, list[Efficiency]] = {}
    for task in measured:
        keys = {"queue": queues.get(task.queue, task.queue), "user": users.get(task.user, task.user), "name": task.name}
        groups.setdefault(tuple(keys[key] for key in by), []).append(runs[task.id])
    return groups


def _seconds(run: Efficiency) -> float:
    return run.seconds.used if run.seconds else 0.0


def _as_json(by: Sequence[str], group: Group, found: Total) -> dict[str, object]:
    shares = {name: None if value is None else round(value, 4) for name, value in _shares(found).items()}
    rest = {key: value for key, value in msgspec.structs.asdict(found).items() if key not in shares}
    return {**dict(zip(by, group, strict=True)), **rest, **shares}


def _shares(found: Total) -> dict[str, float | None]:
    return {
        "cpus": found.cpus,
        "memory": found.memory,
        "gpus": found.gpus,
        "gpu_memory": found.gpu_memory,
        "time": found.time,
    }


def _print(by: Sequence[str], totals: Sequence[tuple[Group, Total]], everything: Total) -> None:
    from hpc_agent.cli.table import number, print_table, text

    columns = [
        *(text(key.upper()) for key in by),
        *(number(title) for title in ("TASKS", "HOURS", "GPU-H", "CPU", "MEM", "GPU", "VRAM", "TIME")),
    ]
    rows = [[*group, *_cells(found)] for group, found in totals]
    if len(rows) > 1:
        rows.append(["all", *[""] * (len(by) - 1), *_cells(everything)])
    print_table(columns, rows, [found.advice for _, found in totals])


def _cells(found: Total) -> list[str]:
    shares = ["" if share is None else f"{share:.0%}" for share in _shares(found).values()]
    gpu_hours = _hours(found.gpu_seconds) if found.gpu_seconds else ""
    return [str(found.tasks), _hours(found.seconds), gpu_hours, *shares]


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f}" if seconds >= 3600 else f"{seconds / 3600:.2f}"
