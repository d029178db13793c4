"""``hpc-agent sbatch``: sbatch, and the job is a tracked task."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hpc_agent.cli.shared_options import HELP, Shared, check_folders, pass_shared

if TYPE_CHECKING:
    from hpc_agent.tracking.command_line import CommandLine
    from hpc_agent.tracking.submission_request import BatchScript
    from hpc_agent.tracking.tracked_records import TrackedRoot
    from hpc_agent.tracking.tracked_submission import PreparedSubmission, TrackedSubmission


class SbatchCommand(click.Command):
    """Command with options for its help only: all arguments go to the parser of sbatch's command line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] in (["--help"], ["-h"]):
            return super().parse_args(ctx, ["--help"])
        ctx.params["arguments"] = tuple(args)
        return []


@click.command(cls=SbatchCommand, options_metavar="[SBATCH OPTIONS]", context_settings=HELP)
@click.option("--clearml-project", metavar="NAME", help="Project of the task. Default: the repository, or the folder.")
@click.option("--clearml-name", metavar="NAME", help="Name of the task. Default: the job's name.")
@click.option("--clearml-tags", metavar="A,B", help="Tags of the task.")
@click.argument("script", nargs=1, required=False)
@click.argument("arguments", nargs=-1)
@pass_shared
def command(shared: Shared, /, arguments: Sequence[str], **_shown_in_help: object) -> None:
    """Submit an unchanged sbatch script; its job becomes a task with code, console, usage and final status.

    Everything but the options below goes to sbatch unchanged (see sbatch --help); its output and exit code are those of
    sbatch. HPC_AGENT_SBATCH_PROJECT, _NAME and _TAGS in the environment set the options.

    If the ClearML server cannot be reached, the job is submitted without a task, with a note on stderr.
    """
    from hpc_agent.errors import HpcAgentError
    from hpc_agent.tracking.command_line import parse
    from hpc_agent.tracking.submission_request import is_submission, read_script

    shared.start_log("ERROR")
    line = parse(arguments, os.path.isfile)
    if not is_submission(line):
        _become_sbatch(line)
    try:
        script = read_script(line, Path.cwd(), sys.stdin.buffer.read)
    except HpcAgentError:
        _become_sbatch(line)  # it reports what it cannot read
    sys.exit(_submit(shared, line, script))


def _submit(shared: Shared, line: CommandLine, script: BatchScript) -> int:
    """Exit code of sbatch."""
    from hpc_agent.errors import HpcAgentError
    from hpc_agent.process import terminal
    from hpc_agent.redact import without_credentials

    try:
        submission, prepared, root = _prepare(shared, line, script)
    except Exception as error:  # noqa: BLE001 - an error in the tracking must not keep the job from its user
        reason = str(error) if isinstance(error, HpcAgentError) else f"{type(error).__name__}: {error}"
        click.echo(f"hpc-agent: submitted without a task: {' '.join(without_credentials(reason).split())}", err=True)
        code, _ = terminal.pass_through(
            ["sbatch", *line.words], env=os.environ, input=script.stdin, on_output=lambda _: None
        )
        return _exit_code(code)

    def follow() -> None:
        _follow(shared, root)
        if sys.stderr.isatty():
            click.echo(f"hpc-agent: {prepared.page}", err=True)

    return _exit_code(submission.run(prepared, script.stdin, follow))


def _prepare(
    shared: Shared, line: CommandLine, script: BatchScript
) -> tuple[TrackedSubmission, PreparedSubmission, TrackedRoot]:
    from hpc_agent.api.client import Client
    from hpc_agent.clock import SYSTEM
    from hpc_agent.retry import Budget
    from hpc_agent.schedulers.slurm.driver import SlurmScheduler
    from hpc_agent.schedulers.slurm.settings import SlurmSettings
    from hpc_agent.tracking.submission_request import parse_request
    from hpc_agent.tracking.tracked_records import TrackedRoot
    from hpc_agent.tracking.tracked_submission import TrackedSubmission

    if shared.config_file is not None:
        os.environ["CLEARML_CONFIG_FILE"] = str(shared.config_file.absolute())
    configuration = shared.configuration()
    check_folders(configuration.settings)
    hpc = configuration.settings.hpc
    # A user waits, and the job is submitted with or without the server.
    client = Client(configuration.settings.api, budget=Budget(3), timeouts=(5, 10))
    wanted = parse_request(line, script.submitted, os.environ)
    root = TrackedRoot.under(hpc.root)
    scheduler = SlurmScheduler(hpc.backend_settings(SlurmSettings), cluster=hpc.cluster)
    submission = TrackedSubmission(configuration, client, scheduler, root, os.environ, SYSTEM)
    prepared = submission.prepare(wanted, hpc.agent_command or (sys.executable, "-m", "hpc_agent"))
    return submission, prepared, root


def _follow(shared: Shared, root: TrackedRoot) -> None:
    """Start the background process that tracks all jobs of this user, unless it runs."""
    from hpc_agent.clock import SYSTEM
    from hpc_agent.errors import ProcessError
    from hpc_agent.process.background import spawn_detached
    from hpc_agent.tracking.follower import is_followed

    if is_followed(root, SYSTEM):
        return
    argv = [sys.executable, "-m", "hpc_agent", *(["--debug"] if shared.debug else []), "follow"]
    try:
        spawn_detached(argv, env=os.environ, cwd=root.path, output=root.log)
    except ProcessError as error:
        click.echo(f"hpc-agent: the job is not being tracked: {error}; run `hpc-agent follow`", err=True)


def _become_sbatch(line: CommandLine) -> NoReturn:
    from hpc_agent.errors import InputError, ProcessError
    from hpc_agent.process.background import replace_process

    try:
        replace_process(["sbatch", *line.words])
    except ProcessError as error:
        raise InputError(f"{error}; is Slurm installed here?") from error


def _exit_code(code: int) -> int:
    """The exit code to end with; after a program that a signal ended we end by the same signal."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code
