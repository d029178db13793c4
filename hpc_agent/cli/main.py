"""``hpc-agent``: one command a module, imported when it is called."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_agent import __version__
from hpc_agent.cli.shared_options import HELP, Shared, fail, from_system
from hpc_agent.cli.standard_streams import open_missing_streams
from hpc_agent.errors import HpcAgentError
from hpc_agent.utf8_mode import ensure_utf8_mode

if TYPE_CHECKING:
    from hpc_agent.logs import LogFormat

SECTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Set up": {
        "init": ("init", "Find out what the cluster is like and write its configuration."),
        "doctor": ("doctor", "Check everything that tasks need, and how to fix what is wrong."),
        "config": ("config", "Show the configuration and where each value comes from."),
        "completion": ("completion", "Print the completion of both commands for bash, zsh or fish."),
    },
    "Run tasks and scripts": {
        "daemon": ("daemon", "Serve queues: submit their tasks as jobs and watch them."),
        "sbatch": ("sbatch", "Submit your own sbatch script; its job becomes a tracked task."),
        "follow": ("follow", "Watch the jobs of hpc-agent sbatch until they end."),
        "session": ("session", "Start a shell or JupyterLab in a job, and print how to connect."),
        "execute": ("execute", "Run one task here, as a compute job does."),
    },
    "Watch and steer them": {
        "jobs": ("jobs", "Show your tasks and their jobs, and why they wait."),
        "why": ("why", "Say why a task waits, or how it died."),
        "logs": ("logs", "Print a task's console, or follow it."),
        "cancel": ("cancel", "Cancel tasks: queued, waiting or running."),
        "render": ("render", "Show a task's job script and where each request comes from."),
        "list": ("workers", "List the workers that the server knows."),
    },
    "Use the cluster well": {
        "free": ("free", "Show what is free, and when a job of some size would start."),
        "efficiency": ("efficiency", "Show how much of what tasks asked for they used."),
        "stats": ("stats", "Show how many requests to scheduler and server each day made."),
    },
    "Prepare and serve": {
        "build": ("build", "Make a task ready to run later: a folder or a container image."),
        "cache": ("cache", "List, warm, verify and prune the shared cache of environments."),
        "server": ("server", "Start the embedded ClearML server."),
    },
}
"""Heading of the help → command → its module in ``hpc_agent.cli``, and its line in the help, which needs no import."""
HIDDEN = {"pilot": "pilot"}
"""Command that scripts of ours call → its module."""
COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}


class LazyGroup(click.Group):
    """Imports a command's module when it is called: ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        module = HIDDEN.get(name) or COMMANDS.get(name, ("",))[0]
        if not module:
            return None
        command: click.Command = importlib.import_module(f"hpc_agent.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in COMMANDS or args[0] in HIDDEN:
            return super().resolve_command(ctx, args)
        import difflib  # 10 ms, only after a misspelt command

        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if near:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings=HELP)
@click.version_option(__version__, prog_name="hpc-agent")
@click.option(
    "--config-file",
    type=click.Path(path_type=Path),
    help="Read this clearml.conf only (also CLEARML_CONFIG_FILE; default ~/clearml.conf).",
)
@click.option("-d", "--debug", is_flag=True, help="Log every step.")
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    envvar="HPC_AGENT_LOG_FORMAT",
    help="Form of the log's lines (also HPC_AGENT_LOG_FORMAT).",
)
@click.pass_context
def group(ctx: click.Context, config_file: Path | None, debug: bool, log_format: LogFormat) -> None:
    """The open bridge between ClearML queues and Slurm clusters."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        ctx.color = False
    ctx.obj = Shared(config_file, debug, log_format)
    ctx.obj.program = ctx.invoked_subcommand or ""
    ctx.call_on_close(ctx.obj.save_request_counts)
    if debug:
        ctx.obj.start_log()


def main() -> None:
    """Entry point; exit codes are decided in ``cli.shared_options.exit_code``."""
    open_missing_streams()
    ensure_utf8_mode()
    try:
        group()
    except HpcAgentError as error:
        fail(error)
    except OSError as error:
        fail(from_system(error, "; hpc.root, hpc.cache_dir and hpc.runs_dir name the folders of our files"))
