"""``hpc-agent list``: who works for this server, and on what."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from hpc_agent.cli.context import Shared, pass_shared


@click.command(name="list", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print the server's own answer.")
@pass_shared
def command(shared: Shared, as_json: bool) -> None:
    """List the workers that the server knows and what each runs."""
    from hpc_agent.retry import INTERACTIVE

    workers = shared.client(shared.configuration(), INTERACTIVE).workers.all()
    if as_json:
        click.echo(json.dumps(workers, indent=2))
        return
    if not workers:
        click.echo("No workers")
        return
    rows = [
        (
            str(worker.get("id") or ""),
            str((worker.get("task") or {}).get("name") or "idle"),
            ", ".join(str(queue.get("name") or queue.get("id")) for queue in worker.get("queues") or ()),
            str(worker.get("last_activity_time") or "")[:19],
        )
        for worker in workers
    ]
    _print_table(("WORKER", "TASK", "QUEUES", "LAST SEEN"), sorted(rows))


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
