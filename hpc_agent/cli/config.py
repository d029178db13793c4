"""``hpc-agent config``: every setting with its value and origin."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.shared_options import HELP, Shared, pass_shared

if TYPE_CHECKING:
    from hpc_agent.config.settings import HpcSettings
    from hpc_agent.schedulers.base import JobOrigin


_TIMEOUT_S = 5.0


@click.command(context_settings=HELP)
@click.option("--defaults", is_flag=True, help="Include defaults, of the keys that this program reads.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: key → value and origin.")
@pass_shared
def command(shared: Shared, defaults: bool, as_json: bool) -> None:
    """Show every value that is set, where it was set, secrets masked."""
    from hpc_agent.config.shown_config import rows
    from hpc_agent.config.variables import why_not

    for variable in sorted(os.environ):
        if reason := why_not(variable):
            click.echo(f"{variable} is set and has no effect here. {reason}", err=True)
    configuration = shared.configuration()
    for note in configuration.notes:
        click.echo(note, err=True)
    found = rows(configuration, defaults=defaults)
    about = _scheduler(configuration.settings.hpc)
    if as_json:
        shown = {row.key: {"value": row.value, "origin": row.origin} for row in found}
        shown["scheduler"] = {"value": [about.name, *about.notes], "origin": "the scheduler"}
        click.echo(json.dumps(shown, indent=2))
        return
    if not found:
        click.echo("Nothing is configured: no ~/clearml.conf, no CLEARML_* variables")
    for row in found:
        click.echo(
            f"{row.key} = {json.dumps(row.value, ensure_ascii=False)}  {click.style(f'# {row.origin}', dim=True)}"
        )
    click.echo(click.style("\n".join(f"# {line}" for line in [f"Scheduler: {about.name}", *about.notes]), dim=True))


def _scheduler(settings: HpcSettings) -> JobOrigin:
    from hpc_agent.clock import SYSTEM
    from hpc_agent.schedulers import backends

    # A user waits: where a scheduler is not set up, its commands try for a minute.
    return backends.describe(backends.create(settings, SYSTEM, timeout=_TIMEOUT_S))
