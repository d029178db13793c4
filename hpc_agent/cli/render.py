"""``hpc-agent render``: the job script of a task, and where each of its requests comes from."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.shared_options import HELP, Shared, not_empty, pass_shared
from hpc_agent.cli.table import Column, one_line, table_lines, text, wrapped
from hpc_agent.cli.waiting_note import waiting_note

if TYPE_CHECKING:
    from hpc_agent.cli.daemon_flags import DaemonFlags
    from hpc_agent.cli.inspection_options import InspectedSite
    from hpc_agent.domain.attempt import Attempt
    from hpc_agent.domain.ids import TaskId
    from hpc_agent.domain.queue import Queue
    from hpc_agent.domain.task import Task
    from hpc_agent.inspection.resource_origins import ResourceOrigin
    from hpc_agent.inspection.script_preview import ScriptPreview, ScriptPreviewer
    from hpc_agent.schedulers.inspector import SubmitTest


@click.command(context_settings=HELP)
@click.option(
    "--id", "task", required=True, callback=not_empty, metavar="TASK", help="Id, the beginning of one, or a name."
)
@click.option("--queue", metavar="NAME", help="As a task of this queue (default: the one that it is or was in).")
@click.option("--check", is_flag=True, help="Ask the scheduler whether it would take the script, and when it starts.")
@click.option("--diff", is_flag=True, help="Compare with the script that was submitted for the task last.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_shared
def command(shared: Shared, task: str, queue: str | None, check: bool, diff: bool, as_json: bool) -> None:
    """Show the job script of a task as the daemon would submit it, and where each request comes from.

    The script is printed on stdout, the requests on stderr. Nothing is submitted and nothing is written. The flags are
    those of the daemon that serves the queue from the same hpc.root, if one runs.
    """
    from hpc_agent.cli.inspection_options import inspect_site
    from hpc_agent.inspection.script_preview import difference

    site = inspect_site(shared)
    with waiting_note():
        preview = _preview(shared, site, site.find(task), queue, submitted=diff)
        tested = _test(site, preview) if check else None
    changes = list(difference(preview)) if diff else None
    if as_json:
        click.echo(json.dumps(_as_json(preview, tested, changes), indent=2))
    else:
        _print_origins(preview.origins)
        if changes is not None:
            _print_difference(changes)
        elif tested is None:
            click.echo(preview.script.rstrip("\n"))
        if tested is not None:
            click.echo(_sentence(tested))
    if tested is not None and not tested.accepted:
        sys.exit(1)


def _preview(shared: Shared, site: InspectedSite, id: TaskId, queue: str | None, *, submitted: bool) -> ScriptPreview:
    task = site.client.tasks.get(id)
    chosen = _queue(site, task, queue)
    attempt = _attempt(site, task, chosen, submitted=submitted)
    return _previewer(shared, site, chosen).preview(task, attempt, chosen)


def _queue(site: InspectedSite, task: Task, name: str | None) -> Queue:
    from hpc_agent.errors import InputError

    queues = site.views.queues()
    if name is not None:
        id = site.client.queues.resolve(name)
    else:
        held = (queue.id for queue in queues if any(entry.task == task.id for entry in queue.entries))
        found = next(held, task.queue)
        if found is None:
            raise InputError(f"task {task.id} is in no queue and never was: say which one with --queue NAME")
        id = found
    for queue in queues:
        if queue.id == id:
            return queue
    raise InputError(f"the queue {id} of task {task.id} was deleted: name another with --queue NAME")


def _attempt(site: InspectedSite, task: Task, queue: Queue, *, submitted: bool) -> Attempt:
    """That of its entry in the queue; else its last one; else the one of an entry that is not there yet."""
    from hpc_agent.domain.attempt import attempt_for
    from hpc_agent.inspection.task_facts import newest_run

    run = newest_run(site.runs, task.id)
    entry = next((entry for entry in queue.entries if entry.task == task.id), None)
    if run is not None and (submitted or (entry is None and run.files.queue == queue.id)):
        return run.directory.attempt
    return attempt_for(site.inspector.scheduler.cluster(), queue.id, task.id, entry.added if entry else "")


def _previewer(shared: Shared, site: InspectedSite, queue: Queue) -> ScriptPreviewer:
    from hpc_agent.bundles.agent_archive import staged_agent_command
    from hpc_agent.cli.daemon_flags import DaemonFlags
    from hpc_agent.clock import SYSTEM
    from hpc_agent.config.job_config import shared_config_path
    from hpc_agent.daemon.job_launch import JobLaunchConfig, job_configs
    from hpc_agent.daemon.options import JobNaming, job_settings
    from hpc_agent.domain.ids import WorkerId
    from hpc_agent.inspection.script_preview import ScriptPreviewer
    from hpc_agent.schedulers import backends
    from hpc_agent.submission.render import Renderer

    daemon = next((d for d in site.daemons() if {queue.name, queue.id} & {*d.queues}), None)
    flags = DaemonFlags.recorded(daemon.flags if daemon else None)
    configuration = flags.configuration(shared)
    own = site.configuration.settings
    backend = backends.choose(own.hpc)
    dynamic = {name: gpus for name, gpus in flags.allocations if gpus} if flags.dynamic_gpus else None
    options = flags.options(
        configuration.settings,
        batch_system=backend.name if backend.is_batch_system else "",
        dynamic=dynamic,
        templates=_templates(flags, queue),
    )
    agent = own.agent
    naming = JobNaming(
        daemon.worker if daemon else WorkerId("hpc-agent"), agent.worker_id or agent.name, given=bool(agent.worker_id)
    )
    launch = JobLaunchConfig(
        shared_config_path(configuration, own.hpc.root / "daemons", {"agent.worker_id": ""}),
        own.hpc.agent_command or (sys.executable, "-m", "hpc_agent"),
        options,
        naming,
        job_configs(site.client, configuration, owner_tokens=flags.use_owner_token),
        staged_agent_command(own.hpc, makes=False) if backend.is_batch_system else (),
    )
    renderer = Renderer(backend.script(own.hpc), [path.expanduser() for path in own.hpc.template_dirs])
    settings = job_settings(configuration.settings, options, [queue.name], 0)
    return ScriptPreviewer(site.client, own, settings, launch, renderer, SYSTEM)


def _templates(flags: DaemonFlags, queue: Queue) -> dict[str, str]:
    """That of the queue among the daemon's, which may have been given by id."""
    files = flags.template_of()
    file = files.get(queue.name) or files.get(queue.id)
    return {queue.name: file} if file else {}


def _test(site: InspectedSite, preview: ScriptPreview) -> SubmitTest:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "job.sh"
        script.write_text(preview.script, encoding="utf-8")
        return site.inspector.test(script, Path(folder))


def _sentence(tested: SubmitTest) -> str:
    if not tested.accepted:
        return click.style("The scheduler would refuse it: ", fg="red") + one_line(tested.message)
    if tested.start is None:
        return f"The scheduler would take it: {one_line(tested.message)}"
    wait = max(tested.start - datetime.now(tested.start.tzinfo), timedelta())
    when = (
        "at once"
        if wait < timedelta(minutes=1)
        else f"in {_in_words(wait)}, at {tested.start.astimezone():%Y-%m-%d %H:%M}"
    )
    where = "".join(
        f" {word} {value}" for word, value in (("on", tested.nodes), ("in partition", tested.partition)) if value
    )
    return click.style("The scheduler would take it", fg="green") + f" and expects to start it {when}{where}"


def _in_words(wait: timedelta) -> str:
    minutes = round(wait.total_seconds() / 60)
    days, rest = divmod(minutes, 24 * 60)
    parts = ((days, "d"), (rest // 60, "h"), (rest % 60, "min"))
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount)


def _print_origins(origins: Sequence[ResourceOrigin]) -> None:
    if not origins:
        return
    rows = [(found.name, found.value, found.origin) for found in origins if found.value]
    for line in table_lines((Column("REQUEST"), text("VALUE"), text("COMES FROM")), rows):
        click.echo(line, err=True)
    left = ", ".join(found.name for found in origins if not found.value)
    if left:
        click.echo(wrapped(f"Left to the scheduler: {left}"), err=True)
    click.echo(err=True)


def _print_difference(lines: Sequence[str]) -> None:
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in lines:
        click.echo(click.style(line, fg=colours.get(line[:1])))
    if not lines:
        click.echo("The script would be the same as the one that was submitted", err=True)


def _as_json(preview: ScriptPreview, tested: SubmitTest | None, changes: Sequence[str] | None) -> dict[str, object]:
    found: dict[str, object] = {
        "queue": preview.queue_name,
        "attempt": preview.directory.attempt.id,
        "script": preview.script,
        "requests": [
            {"name": found.name, "value": found.value or None, "origin": found.origin} for found in preview.origins
        ],
    }
    if changes is not None:
        found["diff"] = list(changes)
    if tested is not None:
        found["check"] = {
            "accepted": tested.accepted,
            "message": tested.message,
            "expected_start": tested.start.isoformat() if tested.start else None,
            "nodes": tested.nodes,
            "partition": tested.partition,
        }
    return found
