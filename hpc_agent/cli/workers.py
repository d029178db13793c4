"""``hpc-agent list``: workers of the server and their current tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import click

from hpc_agent.cli.shared_options import HELP, Shared, pass_shared
from hpc_agent.cli.table import print_table, text

_HEAD = ("WORKER", "RUNS", "TASK", "FOR", "QUEUES", "TAGS", "LAST SEEN")


@click.command(name="list", context_settings=HELP)
@click.option("--json", "as_json", is_flag=True, help="Print the server's own answer.")
@pass_shared
def command(shared: Shared, as_json: bool) -> None:
    """List the workers of the server and their current tasks."""
    from hpc_agent.retry import INTERACTIVE

    workers = shared.client(shared.configuration(), INTERACTIVE).workers.all()
    if as_json:
        click.echo(json.dumps(workers, indent=2))
    elif not workers:
        click.echo("No workers")
    else:
        print_table([text(title) for title in _HEAD], sorted(map(_row, workers)))


def _row(worker: Mapping[str, Any]) -> tuple[str, ...]:
    task = worker.get("task") or {}
    queues = [str(queue.get("name") or queue.get("id")) for queue in worker.get("queues") or ()]
    return (
        str(worker.get("id") or ""),
        str(task.get("name") or "idle"),
        str(task.get("id") or ""),
        str(timedelta(seconds=int(task.get("running_time") or 0) // 1000)) if task else "",
        ", ".join(queues),
        ", ".join(map(str, worker.get("tags") or ())),
        _local(str(worker.get("last_activity_time") or "")),
    )


def _local(text: str) -> str:
    """A time of the server in the local time zone."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return text
    return f"{moment.astimezone() if moment.tzinfo else moment:%Y-%m-%d %H:%M:%S}"
