"""``hpc-agent doctor``: is everything here that tasks need, and if not, which command fixes it?"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpc_agent.cli.job_relay import job_relay, login_relay
from hpc_agent.cli.multi_value_options import MultiValueCommand, MultiValueOption
from hpc_agent.cli.shared_options import HELP, FiniteRange, Shared, pass_shared
from hpc_agent.cli.table import one_line, printable
from hpc_agent.doctor.check import CheckLine, CheckStatus

if TYPE_CHECKING:
    from hpc_agent.config.load import Configuration
    from hpc_agent.doctor.check import Check

_WORDS = {CheckStatus.OK: "ok", CheckStatus.WARNING: "warn", CheckStatus.FAILED: "FAIL", CheckStatus.SKIPPED: "skip"}
_STYLES: Mapping[CheckStatus, Mapping[str, Any]] = {
    CheckStatus.OK: {"fg": "green"},
    CheckStatus.WARNING: {"fg": "yellow"},
    CheckStatus.FAILED: {"fg": "red", "bold": True},
    CheckStatus.SKIPPED: {"dim": True},
}
_NAME = 21
_REMEDY = 8
"""Where a command begins that would not fit below its message."""
_NARROWEST = 40
_WIDEST = 140


@click.command(cls=MultiValueCommand, context_settings=HELP)
@click.option(
    "--queue",
    "queues",
    cls=MultiValueOption,
    at_least=1,
    metavar="QUEUE",
    help="Check these queues (default: hpc.queues).",
)
@click.option(
    "--repository", "repositories", multiple=True, metavar="ADDRESS", help="Try git with this repository; repeatable."
)
@click.option(
    "--jobs/--no-jobs",
    default=None,
    help="Submit a job of seconds to each partition of the queues, which checks its node; on a terminal it is asked.",
)
@click.option(
    "--wait",
    type=FiniteRange(1, 86400),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long these jobs may wait and run.",
)
@click.option("--json", "as_json", is_flag=True, help="Ask nothing; print one JSON object: ok, and checks.")
@click.option("--report-to", type=click.Path(path_type=Path), hidden=True, help="In such a job: check this node only.")
@pass_shared
def command(
    shared: Shared,
    queues: tuple[str, ...] | None,
    repositories: tuple[str, ...],
    jobs: bool | None,
    wait: float,
    as_json: bool,
    report_to: Path | None,
) -> None:
    """Check everything that tasks need: server, scheduler, folders, this machine, and with --jobs the nodes.

    Each line is ok, or tells what is wrong and the command that fixes it. Exit code 1 if a check failed; warnings do
    not count.
    """
    configuration = shared.configuration()
    shared.apply(configuration)
    if report_to is not None:
        _report(configuration, report_to)
        return
    names = tuple(queues or configuration.settings.hpc.queues)
    from hpc_agent.doctor.node_checks import NOT_ASKED

    of_nodes = _node_checks(configuration, names, repositories, jobs, wait, as_json)
    asks_nodes = any(check.subject != NOT_ASKED for check in of_nodes)
    with _relay(configuration) if asks_nodes else nullcontext():
        lines = _run([*_checks(configuration, names, repositories, asks_nodes), *of_nodes], as_json=as_json)
    if as_json:
        click.echo(json.dumps(_as_json(lines), indent=2))
    else:
        click.echo(f"\n{_summary(lines)}")
    sys.exit(1 if _count(lines, CheckStatus.FAILED) else 0)


def _checks(
    configuration: Configuration, queues: Sequence[str], repositories: Sequence[str], asks_nodes: bool
) -> list[Check]:
    from hpc_agent.clock import SYSTEM
    from hpc_agent.doctor import daemon_checks, folder_checks, machine_checks
    from hpc_agent.doctor.scheduler_checks import SchedulerChecks
    from hpc_agent.doctor.server_checks import ServerChecks

    settings = configuration.settings
    server = ServerChecks(settings.api, queues, SYSTEM)
    scheduler = SchedulerChecks(settings.hpc, queues, SYSTEM)
    return [
        *server.all(),
        *scheduler.all(),
        *folder_checks.checks(configuration, batch_system=scheduler.is_batch_system, asks_nodes=asks_nodes),
        *machine_checks.checks(settings, SYSTEM, repositories),
        *daemon_checks.checks(settings.hpc, queues, server.queue_id, SYSTEM),
    ]


def _node_checks(
    configuration: Configuration,
    queues: Sequence[str],
    repositories: Sequence[str],
    jobs: bool | None,
    wait: float,
    as_json: bool,
) -> list[Check]:
    """
    Raises:
        InputError: there are no nodes.
    """
    from hpc_agent.clock import SYSTEM
    from hpc_agent.doctor import node_checks
    from hpc_agent.errors import InputError
    from hpc_agent.schedulers import backends

    backend = backends.choose(configuration.settings.hpc)
    if not backend.is_installed():
        return []  # a check of its own reports that
    if not backend.is_batch_system:
        if jobs:
            raise InputError(f"--jobs: the scheduler of this machine is {backend.name}, there are no nodes to look at")
        return []
    targets = node_checks.targets(configuration, queues)
    if jobs is None and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        where = ", ".join(target.title[0].lower() + target.title[1:] for target in targets)
        jobs = click.confirm(f"Check a node too, with a job of some seconds on {where}?", default=False)
    return node_checks.checks(configuration, targets, wait, SYSTEM, repositories) if jobs else node_checks.no_jobs()


def _relay(configuration: Configuration) -> AbstractContextManager[None]:
    """For the jobs: a daemon need not run yet."""
    from hpc_agent.clock import SYSTEM
    from hpc_agent.schedulers import backends

    hpc = configuration.settings.hpc
    return login_relay(configuration.settings, "doctor", backends.choose(hpc).create(hpc, SYSTEM).cluster)


def _report(configuration: Configuration, folder: Path) -> None:
    from hpc_agent.clock import SYSTEM
    from hpc_agent.doctor.node_report import report

    with job_relay(configuration.settings):
        report(configuration.settings, folder, SYSTEM)


def _run(checks: Sequence[Check], *, as_json: bool) -> list[CheckLine]:
    """Each line is printed as soon as it is its turn."""
    from hpc_agent.clock import SYSTEM
    from hpc_agent.doctor.check import run_checks

    found: list[CheckLine] = []
    progress = _Progress(total=len(checks))
    # Closed at once where Ctrl-C strikes here: its end cancels the jobs.
    with closing(run_checks(checks, SYSTEM, progress.show)) as all_lines:
        for lines in all_lines:
            progress.clear()
            for line in lines:
                if not as_json:
                    if not found or found[-1].subject != line.subject:
                        click.echo(("\n" if found else "") + click.style(one_line(line.subject), bold=True))
                    click.echo(_shown(line))
                found.append(line)
    progress.clear()
    return found


class _Progress:
    """One line on stderr that is written over, where that is a terminal."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = False

    def show(self, waiting: Sequence[str]) -> None:
        if not sys.stderr.isatty() or not waiting:
            return
        names = one_line(", ".join(waiting))
        text = f"{self._total - len(waiting)} of {self._total} checks done, waiting for {names}"
        width = shutil.get_terminal_size().columns - 1
        click.echo("\r" + text[:width].ljust(width), err=True, nl=False)
        self._shown = True

    def clear(self) -> None:
        if self._shown:
            click.echo("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", err=True, nl=False)
            self._shown = False


def _shown(line: CheckLine) -> str:
    """Wrapped on a terminal, in one piece in a pipe, so that it can be searched."""
    from hpc_agent.cli.table import room

    finding = line.finding
    status = click.style(f"{_WORDS[finding.status]:<4}", **_STYLES[finding.status])
    before = 8 + _NAME
    texts = _wrapped(finding.message, before)
    name = one_line(line.name)
    head = f"  {status}  {name:<{_NAME - 1}} "
    if len(name) >= _NAME:
        head = f"  {status}  {name}\n{' ' * before}"
    rows = [head + texts[0], *(" " * before + text for text in texts[1:])]
    if finding.remedy:
        # In one piece: a command is copied.
        remedy = f"→ {printable(finding.remedy)}"
        width = room()
        fits = width is None or before + len(remedy) <= width
        rows.append(" " * (before if fits else _REMEDY) + click.style(remedy, bold=True))
    return "\n".join(rows)


def _wrapped(text: str, before: int) -> list[str]:
    text = one_line(text)
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return [text]
    width = max(min(shutil.get_terminal_size().columns, _WIDEST) - before, _NARROWEST - before // 2)
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def _count(lines: Sequence[CheckLine], status: CheckStatus) -> int:
    return sum(line.finding.status is status for line in lines)


def _summary(lines: Sequence[CheckLine]) -> str:
    failed, warnings = _count(lines, CheckStatus.FAILED), _count(lines, CheckStatus.WARNING)
    skipped = _count(lines, CheckStatus.SKIPPED)
    counts = [f"{len(lines) - failed - warnings - skipped} ok"]
    for number, word in (
        (failed, "failed"),
        (warnings, "warning" if warnings == 1 else "warnings"),
        (skipped, "skipped"),
    ):
        counts += [f"{number} {word}"] if number else []
    text = ", ".join(counts)
    return click.style(text, fg="red" if failed else "yellow" if warnings else "green", bold=True)


def _as_json(lines: Sequence[CheckLine]) -> dict[str, object]:
    return {
        "ok": not _count(lines, CheckStatus.FAILED),
        "checks": [
            {
                "subject": line.subject,
                "name": line.name,
                "status": line.finding.status.value,
                "message": line.finding.message,
                "remedy": line.finding.remedy,
            }
            for line in lines
        ],
    }
