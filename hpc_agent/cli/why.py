"""``hpc-agent why``: why a task waits, or how it died."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.shared_options import HELP, Shared, pass_shared
from hpc_agent.cli.table import one_line, wrapped
from hpc_agent.cli.waiting_note import waiting_note

if TYPE_CHECKING:
    from hpc_agent.inspection.explanation import Explanation

_COLOURS = {"failed": "red", "missing": "red", "stopped": "yellow", "waiting": "yellow"}
_VERDICTS = {
    "waiting": "is waiting",
    "running": "is running",
    "missing": "has no verdict yet",
    "draft": "is a draft",
}
"""In a sentence; the others are as they are."""


@click.command(context_settings=HELP)
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, an object for each task.")
@pass_shared
def command(shared: Shared, tasks: Sequence[str], as_json: bool) -> None:
    """Say why a task waits, or how it died, with the evidence and the next step.

    TASK is a task's id or the beginning of it, its job's number, or its name.
    """
    from hpc_agent.cli.inspection_options import inspect_site
    from hpc_agent.inspection.explanation import explain

    site = inspect_site(shared)
    with waiting_note():
        found = [site.find(task) for task in tasks]
        reader = site.facts_reader()
        explanations = [explain(reader.read(task)) for task in found]
    if as_json:
        click.echo(json.dumps([explanation.as_json() for explanation in explanations], indent=2))
        return
    for number, explanation in enumerate(explanations):
        if number:
            click.echo()
        _print(explanation)


def _print(explanation: Explanation) -> None:
    head = f"{one_line(explanation.name) or 'Task'} ({explanation.task[:8]})"
    verdict = _VERDICTS.get(explanation.verdict, explanation.verdict)
    sentence = one_line(explanation.sentence)
    said = click.style(verdict, fg=_COLOURS.get(explanation.verdict, "green"), bold=True)
    # "Slurm job 12 is waiting (Resources): …" has it already.
    paragraph = wrapped(f"{head}: {sentence}." if verdict in sentence else f"{head} {verdict}: {sentence}.")
    click.echo(paragraph.replace(verdict, said, 1) if head in paragraph else paragraph)
    if explanation.next_step:
        click.echo(f"\n{wrapped(f'Next: {one_line(explanation.next_step)}.', '', '      ')}")
    if explanation.evidence:
        click.echo()
    label = max((len(found.source) for found in explanation.evidence), default=0)
    for found in explanation.evidence:
        click.echo(wrapped(one_line(found.text), f"  {found.source.ljust(label)}  ", " " * (label + 4)))
    if explanation.last_lines:
        click.echo("\nIts last lines:")
        for line in explanation.last_lines:
            click.echo(click.style(f"  | {_clean(line)}", dim=True))


def _clean(line: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\t" else " " for letter in line)
