"""``hpc-agent config``: what holds, and who said so."""

from __future__ import annotations

import json
import re

import click

from hpc_agent.cli.context import Shared, pass_shared

_SECRET = re.compile(r"secret|pass|token|account_key|contents|^environment\.", re.IGNORECASE)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: key → value and origin.")
@pass_shared
def command(shared: Shared, as_json: bool) -> None:
    """Show every value that is set, where it was set, secrets masked."""
    from hpc_agent.config.tree import flatten, get
    from hpc_agent.redact import without_credentials

    configuration = shared.configuration()
    rows = []
    for key in sorted(flatten(configuration.tree)):
        value = get(configuration.tree, key)
        shown = "********" if _SECRET.search(key) and value else without_credentials(json.dumps(value))
        rows.append((key, shown, configuration.origins.get(key, "")))
    if as_json:
        click.echo(json.dumps({key: {"value": value, "origin": origin} for key, value, origin in rows}, indent=2))
        return
    if not rows:
        click.echo("Nothing is configured: no ~/clearml.conf, no CLEARML_* variables")
    for key, value, origin in rows:
        click.echo(f"{key} = {value}  {click.style(f'# {origin}', dim=True)}")
