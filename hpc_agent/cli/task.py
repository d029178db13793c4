"""``hpc-task``: create a task from code, and put it on a queue. The flags are those of ``clearml-task``."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hpc_agent import __version__
from hpc_agent.cli.multi_value_options import MultiValueCommand, MultiValueOption
from hpc_agent.cli.shared_options import Shared, fail, from_system
from hpc_agent.cli.standard_streams import open_missing_streams
from hpc_agent.cli.table import one_line
from hpc_agent.cli.task_resources import LAUNCH, RESOURCES, launch_flags, resource_flags
from hpc_agent.utf8_mode import ensure_utf8_mode

if TYPE_CHECKING:
    from datetime import datetime

    from hpc_agent.api.client import Client
    from hpc_agent.config.settings import HpcSettings
    from hpc_agent.drafts.create import Created
    from hpc_agent.retry import Budget

# Importing the type list would import its package; a test holds it equal to domain.draft.TASK_TYPES.
TASK_TYPES = (
    "training", "testing", "inference", "data_processing", "application", "monitor", "controller", "optimizer",
    "service", "qc", "custom",
)  # fmt: skip

EXAMPLES = """
\b
Examples:
  hpc-task --project lab --name first --script train.py --packages torch "numpy>2" --queue gpu
  hpc-task --project lab --name sweep --script train.py --args lr=0.1 epochs=3 --queue gpu
  hpc-task --project lab --name big --repo https://host/lab/code.git --branch main --script src/train.py --queue gpu
  hpc-task --name again --base-task-id 1a2b… --args lr=0.2 --queue gpu --num-gpus 2 --time-limit 4:00:00 --follow
"""


@click.command(cls=MultiValueCommand, epilog=EXAMPLES)
@click.version_option(__version__, prog_name="hpc-task", message="%(prog)s %(version)s")
@click.option("--project", help="Project of the task; made if it does not exist. Optional with --base-task-id.")
@click.option("--name", help="Name of the task.")
@click.option("--tags", cls=MultiValueOption, metavar="TAG", help='Tags of the task: --tags "base" "job".')
@click.option("--repo", help="Address of the git repository, or a local folder that is in one.")
@click.option("--folder", help="Local folder in a git repository; its commit and uncommitted changes are sent.")
@click.option("--branch", help="Branch or tag of the repository; its newest commit at the time of the run.")
@click.option("--commit", help="Commit of the repository. Default: the newest, or the one that the folder is at.")
@click.option(
    "--script",
    help="Script to run: .py, .ipynb or .sh. With --repo relative to the repository's root, with --folder relative to "
    "it or a path into it. A script that is in no repository is sent whole.",
)
@click.option("--module", help='Python module to run instead of a script: "torch.distributed.launch train.py".')
@click.option("--cwd", help="Folder to run in, relative to the repository's root (the default) or to --folder.")
@click.option("--binary", help="Program that runs the script: python3.12, /bin/bash. Found out when not given.")
@click.option("--args", cls=MultiValueOption, metavar="NAME=VALUE", help="Arguments of the script: --args lr=0.003.")
@click.option("--queue", help="Queue to put the task on, by name or id. Without it the task is left a draft.")
@resource_flags
@launch_flags
@click.option("--requirements", metavar="FILE", help="File of packages to install instead of the repository's own.")
@click.option("--packages", cls=MultiValueOption, metavar="PACKAGE", help='Packages: --packages keras "tqdm>=2.1".')
@click.option("--docker", metavar="IMAGE", help="Container image to run in.")
@click.option("--docker_args", "--docker-args", metavar="ARGUMENTS", help="Arguments of the container, as one text.")
@click.option(
    "--docker_bash_setup_script",
    "--docker-bash-setup-script",
    metavar="FILE|TEXT",
    help="bash script to run in the container before the environment is set up: a file, or the text itself.",
)
@click.option("--output-uri", metavar="URI", help="Where models and artifacts go: a URL or an absolute path.")
@click.option("--task-type", type=click.Choice(TASK_TYPES), help="Type of the task. Ignored with --pipeline.")
@click.option("--skip-task-init", is_flag=True, help="Do not add a Task.init() call: the script has one.")
@click.option(
    "--base-task-id", metavar="TASK", help="Copy this task (id or name) and apply the other flags to the copy."
)
@click.option("--import-offline-session", metavar="ZIP", help="Import a run that the SDK recorded offline.")
@click.option("--force-no-requirements", is_flag=True, help="Install no packages, and ask for no list of them.")
@click.option("--skip-repo-detection", is_flag=True, help="Send the script alone though it is in a repository.")
@click.option(
    "--skip-python-env-install",
    is_flag=True,
    help="In a container: use its Python environment as it is (CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL).",
)
@click.option("--pipeline", is_flag=True, help="The script is a pipeline's controller.")
@click.option("--pipeline-version", metavar="VERSION", help="Version of the pipeline. Only with --pipeline.")
@click.option("--pipeline-dont-add-run-number", is_flag=True, help="Do not number the pipeline's runs.")
@click.option(
    "--follow", is_flag=True, help="Show its way and its console, and end with its exit code. Ctrl-C leaves it running."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
@click.help_option("-h", "--help")
def task(import_offline_session: str | None, follow: bool, as_json: bool, **flags: Any) -> None:
    """Create a ClearML task from a script, a repository or another task, and put it on a queue.

    Everything is checked before anything is created.
    """
    given = {name: value for name, value in flags.items() if value}
    with _errors():
        if follow:
            _check_followable(given, import_offline_session, as_json=as_json)
        created = _imported(import_offline_session, given) if import_offline_session else _created(given)
    with _errors(f"; task {created.id} was created{' and queued' if created.queue else ''}"):
        _print(created, is_imported=bool(import_offline_session), as_json=as_json)
    if follow:
        with _errors():
            sys.exit(_follow(created))


def _print(created: Created, *, is_imported: bool, as_json: bool) -> None:
    if as_json:
        from msgspec.structs import asdict

        click.echo(json.dumps(asdict(created)))
        return
    click.echo(f'task {created.id} "{one_line(created.name)}" created')
    if is_imported:
        click.echo("imported from the offline session, as completed")
    else:
        queued = f"queued on {one_line(created.queue)}"
        click.echo(queued if created.queue else "left as a draft: --queue would have queued it")
    click.echo(created.page)


def _check_followable(given: dict[str, Any], session: str | None, *, as_json: bool) -> None:
    from hpc_agent.drafts.draft_request import WrongUsageError

    if session or not given.get("queue"):
        raise WrongUsageError("--follow shows how a task runs: give --queue, a draft does not run")
    if as_json:
        raise WrongUsageError("--json prints one line for a program, --follow the console: give one of the two")


def _follow(created: Created) -> int:
    """Exit code of the task. Ctrl-C leaves it running."""
    from hpc_agent.api.console_pages import ConsolePages
    from hpc_agent.cli.console_display import ConsoleDisplay
    from hpc_agent.clock import SYSTEM
    from hpc_agent.inspection.task_follower import TaskFollower

    client = _client()
    page = f"its page, {created.page}" if created.page else "its page"
    display = ConsoleDisplay(
        f"the task goes on; to cancel it, run `hpc-agent cancel {created.id}` or abort it on {page}"
    )
    return display.show(TaskFollower(client, created.id, SYSTEM, ConsolePages(client.events, created.id)).events())


def _created(given: dict[str, Any]) -> Created:
    from pathlib import Path

    from hpc_agent.clock import SYSTEM
    from hpc_agent.drafts.create import create
    from hpc_agent.drafts.draft_plan import plan
    from hpc_agent.drafts.draft_request import DraftRequest, WrongUsageError
    from hpc_agent.drafts.draft_resources import check_for_queue
    from hpc_agent.errors import InputError, SourceError

    resources = {name: given.pop(name) for name in (*RESOURCES, *LAUNCH) if name in given}
    request = DraftRequest(**given, resources=resources)
    try:
        planned = plan(request, Path.cwd(), _comment(SYSTEM.now()))
    except WrongUsageError:
        raise
    except (InputError, SourceError) as error:
        raise InputError(_with_queues_problem(error, request.queue)) from error
    _warn(planned.warnings)
    client, hpc = _client_and_settings()
    _warn(check_for_queue(client, hpc, request))
    return create(client, request, planned)


def _with_queues_problem(problem: Exception, queue: str) -> str:
    """The problem on this machine, and one with the queue too: one run reports both."""
    from hpc_agent.errors import HpcAgentError, InputError
    from hpc_agent.retry import ONCE

    if queue:
        try:
            _client(ONCE).queues.resolve(queue)
        except InputError as error:
            return f"{error}; and {problem}"
        except HpcAgentError:
            pass  # no server is configured or up: reported when it is needed
    return str(problem)


def _imported(session: str, given: dict[str, Any]) -> Created:
    from pathlib import Path

    from hpc_agent.drafts.draft_request import WrongUsageError, typed_path
    from hpc_agent.drafts.offline_import import import_offline, open_session

    if given:
        name = next(iter(given)).replace("_", "-")
        raise WrongUsageError(f"--import-offline-session imports a run as it was: it does not go with --{name}")
    with open_session(typed_path(session, Path.cwd())) as run:
        _warn(run.warnings)
        return import_offline(_client(), run)


def _client(budget: Budget | None = None) -> Client:
    return _client_and_settings(budget)[0]


def _client_and_settings(budget: Budget | None = None) -> tuple[Client, HpcSettings]:
    from hpc_agent.retry import INTERACTIVE

    shared = Shared(None, False)
    configuration = shared.configuration()
    return shared.client(configuration, budget or INTERACTIVE), configuration.settings.hpc


def _comment(now: datetime) -> str:
    import socket

    from hpc_agent.access import user_name

    return f"Created with hpc-task at {now:%Y-%m-%d %H:%M:%S} UTC by {user_name()}@{socket.gethostname()}"


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {one_line(warning)}", err=True)


@contextmanager
def _errors(done: str = "") -> Iterator[None]:
    """Report errors in one sentence on stderr; exit codes as ``clearml-task``: 2 for wrong usage, else 1.

    ``done``: what has been done all the same.
    """
    from hpc_agent.drafts.draft_request import WrongUsageError
    from hpc_agent.errors import HpcAgentError

    try:
        yield
    except HpcAgentError as error:
        fail(error, 2 if isinstance(error, WrongUsageError) else 1)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # click ends the program without a word: the reader has left
        fail(HpcAgentError(f"{from_system(error)}{done}"))


def main() -> None:
    """The console script ``hpc-task``; without arguments it shows its help."""
    open_missing_streams()
    ensure_utf8_mode()
    task(sys.argv[1:] or ["--help"], prog_name="hpc-task")
