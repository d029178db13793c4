"""What ``hpc-agent init`` tells a person: what it found out, what it wrote, what to do next."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_agent.access import user_name
from hpc_agent.setup.managed_text import Change
from hpc_agent.setup.section import Choices
from hpc_agent.setup.survey import SiteFacts

if TYPE_CHECKING:
    from hpc_agent.cli.init_service import DaemonService
    from hpc_agent.schedulers.cluster import ClusterFacts

_LINGER = Path("/var/lib/systemd/linger")
"""One file for each user whose services go on when they log out."""


class InitReport:
    """Prints to stdout; progress goes to stderr, where that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._shows_steps = not quiet and sys.stderr.isatty()
        self._step_is_shown = False

    def step(self, what: str) -> None:
        """Written over by the next one, and by what follows."""
        if self._shows_steps:
            text = f"Looking at {what} …"[: shutil.get_terminal_size().columns - 1]
            click.echo("\r\x1b[K" + click.style(text, dim=True), nl=False, err=True)
            self._step_is_shown = True

    def clear_step(self) -> None:
        if self._step_is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._step_is_shown = False

    def facts(self, facts: SiteFacts) -> None:
        if self._quiet:
            return
        if facts.cluster is None:
            click.echo(facts.without_cluster)
        else:
            click.echo(click.style(f"{facts.cluster.scheduler}, cluster {facts.cluster.cluster}", bold=True))
            for name, text in _of_the_cluster(facts.cluster):
                _row(name, text)
        if facts.container_runtimes:
            _row("containers", ", ".join(facts.container_runtimes))
        for folder in facts.folders:
            kind = "" if folder.shared else ", not a network file system: make sure that the nodes see it"
            _row(folder.source, f"{folder.path}: {folder.free_gib:g} GiB free, {folder.file_system}{kind}")
        for sentence in facts.cluster.unanswered if facts.cluster else ():
            _row("not found out", sentence)

    def changes(self, changes: Sequence[Change], *, dry_run: bool) -> None:
        """What was written, or would be."""
        click.echo()
        for change in changes:
            if not change.is_one:
                click.echo(f"{change.path} is up to date")
            elif dry_run:
                click.echo(f"{change.path} would be {'written' if change.before is None else 'changed'}:")
                click.echo(_coloured(change.difference()))
            else:
                click.echo(f"{change.path}: {'written' if change.before is None else 'changed'}")
            if change.unknown_edits:
                click.echo(
                    "  Its lines were kept: what was written is not on record, so all of them may be edits of yours"
                )
            for lines in change.set_aside:
                click.echo("  Your edit was kept. These lines would have come in its place:")
                click.echo("\n".join(f"  | {line.strip()}" for line in lines))

    def next_steps(
        self, facts: SiteFacts, choices: Choices, service: DaemonService, *, has_server: bool, site: bool
    ) -> None:
        click.echo("\n" + click.style("Next", bold=True))
        steps = [("hpc-agent doctor --jobs", "does all that tasks need work here?")]
        if site:
            click.echo("  hpc-agent init      # each user, for what is their own: keys, queues, folders")
            return
        if not has_server:
            click.echo(
                "  There is no ClearML server in the configuration: run this command on a terminal, which asks for it, "
                "or add a section api"
            )
        name = Path(service.command[0])
        # What a person would type, where that is the same program.
        typed = name.name if shutil.which(name.name) == str(name) else str(name)
        command = shlex.join([typed, *service.command[1:]])
        if service.kind == "systemd":
            click.echo("  systemctl --user daemon-reload && systemctl --user enable --now hpc-agent")
            click.echo("  systemctl --user status hpc-agent       # and journalctl --user -u hpc-agent")
            if not (_LINGER / user_name()).exists():
                click.echo("  loginctl enable-linger                  # it goes on when you log out")
        elif service.lines:
            edit = "crontab -e" if service.kind == "cron" else f"{service.kind} -e"
            click.echo(f"  {edit}, and add" + "\n" + "\n".join(f"    {line}" for line in service.lines))
        else:
            steps += [
                (f"{command} --create-queue --once", "one pass over the queues"),
                (f"{command} --create-queue --detached", "or serve them until it is stopped"),
            ]
        width = max(len(step) for step, _ in steps)
        click.echo("\n".join(f"  {step:<{width}}  # {meaning}" for step, meaning in steps))


def _row(name: str, text: str) -> None:
    width = max(shutil.get_terminal_size((100, 24)).columns, 40)
    lines = textwrap.wrap(text, width - 16) or [""]
    click.echo("\n".join(f"  {name if number == 0 else '':<13} {line}" for number, line in enumerate(lines)))


def _of_the_cluster(cluster: ClusterFacts) -> list[tuple[str, str]]:
    from hpc_agent.domain.resources import format_time_limit
    from hpc_agent.schedulers.availability import gpu_types

    partitions = [
        f"{p.name}{' (default)' if p.default else ''}"
        f"{f' up to {format_time_limit(p.time_limit)}' if p.time_limit else ''}"
        f"{'' if p.allowed else ' (not yours)'}"
        for p in cluster.partitions
    ]
    gpus = [
        f"{sum(gpu.total for node in cluster.nodes for gpu in node.gpus if gpu.kind == kind)} × {kind or 'GPU'}"
        for kind in gpu_types(cluster.nodes)
    ]
    accounts = [f"{a.name}{' (your default)' if a.default else ''}" for a in cluster.accounts]
    found = [
        ("partitions", ", ".join(partitions)),
        ("nodes", str(len(cluster.nodes))),
        ("GPUs", ", ".join(gpus) or "none"),
        ("accounts", ", ".join(dict.fromkeys(accounts))),
        ("QOS", ", ".join(cluster.qos)),
        *((name, f"{finding.value}: {finding.because}") for name, finding in sorted(cluster.settings.items())),
        ("limits", ", ".join(f"{name} {value}" for name, value in cluster.limits.items())),
        *(("note", note) for note in cluster.notes),
    ]
    return [(name, text) for name, text in found if text]


def _coloured(difference: str) -> str:
    colours = {"+": "green", "-": "red"}
    lines = difference.splitlines()[2:]
    return "\n".join(click.style(line, fg=colours[line[0]]) if line[:1] in colours else line for line in lines)
