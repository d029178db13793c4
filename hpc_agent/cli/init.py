"""``hpc-agent init``: finds out what a cluster is like and writes the configuration that suits it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from msgspec.structs import asdict, replace

from hpc_agent.cli.init_flags import SERVICES, InitFlags
from hpc_agent.cli.multi_value_options import MultiValueCommand, MultiValueOption
from hpc_agent.cli.shared_options import Shared, missing_commands, pass_shared

if TYPE_CHECKING:
    from hpc_agent.cli.init_report import InitReport
    from hpc_agent.cli.init_service import DaemonService
    from hpc_agent.config.load import Configuration
    from hpc_agent.setup.managed_text import Change
    from hpc_agent.setup.section import Choices
    from hpc_agent.setup.survey import SiteFacts


@click.command(cls=MultiValueCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--queue", "queues", cls=MultiValueOption, at_least=1, metavar="QUEUE", help="ClearML queues to serve.")
@click.option("--partition", help="Where their jobs go: a partition, or several with commas.")
@click.option("--account", help="Account to charge.")
@click.option("--qos", help="Quality of service of the jobs.")
@click.option("--root", help="Folder for all of our files, which all nodes see (hpc.root).")
@click.option("--cache-dir", help="Folder for environments and repositories (hpc.cache_dir).")
@click.option("--scheduler", help="Do not look for a scheduler, take this one (hpc.scheduler).")
@click.option(
    "--service", type=click.Choice(SERVICES), help="How the daemon is kept running: a user unit, or a crontab's line."
)
@click.option(
    "--file", type=click.Path(path_type=Path, dir_okay=False), help="Write this file, not the one that is read."
)
@click.option("--site", is_flag=True, help="Write the file for all users of the site (/etc/hpc-agent.conf).")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing; take the flags and what was found out.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Ask nothing; print all that was found out as one JSON object.")
@pass_shared
def command(shared: Shared, /, **flags: object) -> None:
    """Find out what this cluster is like, and write a commented section `hpc` to your clearml.conf.

    Asks when it runs on a terminal. It can be run again at any time: lines that you have changed stay as they are,
    the others follow the cluster. Some ten short requests go to the scheduler; nothing is submitted.
    """
    _run(shared, InitFlags(**flags))  # type: ignore[arg-type]


def _run(shared: Shared, flags: InitFlags) -> None:
    from hpc_agent.cli import init_file
    from hpc_agent.cli.init_report import InitReport
    from hpc_agent.cli.init_service import chosen_service
    from hpc_agent.setup.managed_text import in_section, write
    from hpc_agent.setup.section import render

    path = init_file.target(shared, flags)
    present = init_file.present(path, flags)
    report = InitReport(quiet=flags.as_json)
    facts = _survey(present, flags, report)
    choices = _checked_choices(path, facts, flags)
    report.facts(facts)
    server = _server(present, flags)
    if flags.asks:
        choices = _asked(choices, facts, flags)
    change = in_section(path, render(facts, choices, init_file.elsewhere(path, flags)))
    if server:
        change = replace(change, after=f"{server}\n{change.after}")
    init_file.check(change, path, flags)
    service = chosen_service(present, facts, choices, flags, path)
    if not flags.dry_run:
        write(change, mode=0o644 if flags.site else 0o600)
        for each in service.changes:
            write(each)
    if flags.as_json:
        click.echo(json.dumps(_as_json(facts, choices, change, service), indent=2, default=str))
        return
    report.changes((change, *service.changes), dry_run=flags.dry_run)
    if not flags.dry_run:
        report.next_steps(facts, choices, service, has_server=bool(server) or _has_server(present), site=flags.site)


# ---------------------------------------------------------------- the site, and what was chosen


def _survey(present: Configuration, flags: InitFlags, report: InitReport) -> SiteFacts:
    """
    Raises:
        InputError: the scheduler's commands are not here.
        SchedulerUnavailableError: it does not answer.
    """
    from hpc_agent.errors import InputError
    from hpc_agent.schedulers import backends
    from hpc_agent.setup.survey import survey

    hpc = present.settings.hpc
    backend = backends.choose(hpc)
    if not backend.is_installed():
        raise InputError(missing_commands(backend))
    where = (flags.partition or "").split(",")[0]
    try:
        facts = survey(hpc, os.environ, report.step, partition=where, account=flags.account or "")
    finally:
        report.clear_step()
    # Those of an administrator concern no other user.
    return replace(facts, folders=()) if flags.site else facts


_CHOICES = ("queues", "partition", "account", "qos", "root", "cache_dir")


def _checked_choices(path: Path, facts: SiteFacts, flags: InitFlags) -> Choices:
    """The flags, else what was chosen the last time, else what suits the site.

    Raises:
        InputError: there is no such partition, account or QOS, or the folder will not do.
    """
    from hpc_agent.cli.init_choices import check, earlier, suggested

    given = {name: getattr(flags, name) for name in _CHOICES if getattr(flags, name) is not None}
    choices = replace(earlier(path) or suggested(facts), **given)
    check(choices, facts)
    return choices


def _asked(choices: Choices, facts: SiteFacts, flags: InitFlags) -> Choices:
    from hpc_agent.cli.init_choices import ask

    return ask(choices, facts, {name for name in _CHOICES if getattr(flags, name) is not None})


def _has_server(present: Configuration) -> bool:
    api = present.settings.api
    return bool(api.api_server and ((api.access_key and api.secret_key.reveal()) or api.auth_token.reveal()))


def _server(present: Configuration, flags: InitFlags) -> str:
    """The section ``api`` where it is missing and a person can be asked for it; else empty."""
    from hpc_agent.cli.init_choices import ask_for_server

    if not flags.asks or flags.site or _has_server(present):
        return ""
    return ask_for_server(present.settings.api)


def _as_json(facts: SiteFacts, choices: Choices, change: Change, service: DaemonService) -> dict[str, object]:
    return {
        "site": msgspec.to_builtins(facts, enc_hook=str),
        "choices": asdict(choices),
        "file": str(change.path),
        "changed": change.is_one,
        "section": list(change.lines_after),
        "not_taken": [list(aside) for aside in change.set_aside],
        "daemon": list(service.command),
        "crontab": list(service.lines),
    }
