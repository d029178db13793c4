"""``hpc-agent sbatch``: sbatch, and the job is a tracked task."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.shared_options import Shared, check_folders, pass_shared

if TYPE_CHECKING:
    from hpc_agent.tracking.command_line import CommandLine
    from hpc_agent.tracking.submission_request import BatchScript
    from hpc_agent.tracking.tracked_records import TrackedRoot
    from hpc_agent.tracking.tracked_submission import PreparedSubmission, TrackedSubmission


class SbatchCommand(click.Command):
    """Its own options stand in its help; all words go to sbatch's grammar, which is not click's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] in (["--help"], ["-h"]):
            return super().parse_args(ctx, ["--help"])
        ctx.params["words"] = tuple(args)
        return []


@click.command(
    cls=SbatchCommand, options_metavar="[SBATCH OPTIONS]", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option("--clearml-project", metavar="NAME", help="Project of the task. Default: the repository, or the folder.")
@click.option("--clearml-name", metavar="NAME", help="Name of the task. Default: the job's name.")
@click.option("--clearml-tags", metavar="A,B", help="Tags of the task.")
@click.argument("script", nargs=1, required=False)
@click.argument("arguments", nargs=-1)
@pass_shared
def command(shared: Shared, /, words: Sequence[str], **_shown_in_help: object) -> None:
    """Submit an unchanged sbatch script; its job becomes a task with code, console, usage and final status.

    Everything but the options below goes to sbatch as it stands (see sbatch --help), which prints what it always prints
    and gives the exit code. HPC_AGENT_SBATCH_PROJECT, _NAME and _TAGS in the environment stand for the options.

    If the ClearML server cannot be reached the job is submitted all the same, without a task; a line on stderr says so.
    """
    from hpc_agent.errors import HpcAgentError
    from hpc_agent.tracking.command_line import parse
    from hpc_agent.tracking.submission_request import is_submission, read_script

    shared.start_log("ERROR")
    line = parse(words, os.path.isfile)
    if not is_submission(line):
        _become_sbatch(line)
    try:
        script = read_script(line, Path.cwd(), sys.stdin.buffer.read)
    except HpcAgentError:
        _become_sbatch(line)  # which knows best what it cannot read
    sys.exit(_submit(shared, line, script))


def _submit(shared: Shared, line: CommandLine, script: BatchScript) -> int:
    """Exit code of sbatch."""
    from hpc_agent import process
    from hpc_agent.errors import HpcAgentError
    from hpc_agent.redact import without_credentials

    try:
        submission, prepared, folders = _prepare(shared, line, script)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the tracking, the job is the person's to submit
        words = str(error) if isinstance(error, HpcAgentError) else f"{type(error).__name__}: {error}"
        click.echo(f"hpc-agent: submitted without a task: {' '.join(without_credentials(words).split())}", err=True)
        code, _ = process.pass_through(
            ["sbatch", *line.words], env=os.environ, input=script.stdin, on_output=lambda _: None
        )
        return _ended(code)

    def follow() -> None:
        _follow(shared, folders)
        if sys.stderr.isatty():
            click.echo(f"hpc-agent: {prepared.page}", err=True)

    return _ended(submission.run(prepared, script.stdin, follow))


def _prepare(
    shared: Shared, line: CommandLine, script: BatchScript
) -> tuple[TrackedSubmission, PreparedSubmission, TrackedRoot]:
    from hpc_agent.api.client import Client
    from hpc_agent.clock import SYSTEM
    from hpc_agent.retry import Budget
    from hpc_agent.schedulers.slurm_driver import SlurmScheduler
    from hpc_agent.tracking.submission_request import parse_request
    from hpc_agent.tracking.tracked_records import TrackedRoot
    from hpc_agent.tracking.tracked_submission import TrackedSubmission

    if shared.config_file is not None:
        os.environ["CLEARML_CONFIG_FILE"] = str(shared.config_file.absolute())
    configuration = shared.configuration()
    check_folders(configuration.settings)
    hpc = configuration.settings.hpc
    # A person waits, and the job goes out with or without the server.
    client = Client(configuration.settings.api, budget=Budget(3), patience=(5, 10))
    wanted = parse_request(line, script.submitted, os.environ)
    folders = TrackedRoot(hpc.root.expanduser().absolute() / "sbatch")
    scheduler = SlurmScheduler(hpc.slurm, cluster=hpc.cluster)
    submission = TrackedSubmission(configuration, client, scheduler, folders, os.environ, SYSTEM)
    prepared = submission.prepare(wanted, hpc.agent_command or (sys.executable, "-m", "hpc_agent"))
    return submission, prepared, folders


def _follow(shared: Shared, folders: TrackedRoot) -> None:
    """Somebody must bring the task to its end: a process in the background, unless one is there."""
    from hpc_agent.clock import SYSTEM
    from hpc_agent.errors import ProcessError
    from hpc_agent.process import spawn_detached
    from hpc_agent.tracking.follower import is_followed

    if is_followed(folders, SYSTEM):
        return
    argv = [sys.executable, "-m", "hpc_agent", *(["--debug"] if shared.debug else []), "follow"]
    try:
        spawn_detached(argv, env=os.environ, cwd=folders.path, output=folders.log)
    except ProcessError as error:
        click.echo(f"hpc-agent: nobody follows the job, run hpc-agent follow: {error}", err=True)


def _become_sbatch(line: CommandLine) -> None:
    from hpc_agent.errors import InputError

    try:
        os.execvp("sbatch", ["sbatch", *line.words])  # noqa: S606 - it is what the person asked for
    except OSError as error:
        raise InputError(f"sbatch cannot be started: {error.strerror}; is Slurm installed here?") from error


def _ended(code: int) -> int:
    """The exit code to end with; a program that a signal ended is followed by the same signal."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code
