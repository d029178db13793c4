"""Common part of all commands: the global flags, the configuration, how an error ends the program."""

from __future__ import annotations

import math
import os
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hpc_agent.cli.standard_streams import drop_broken_output
from hpc_agent.errors import (
    ConfigError,
    HpcAgentError,
    InputError,
    NotQueuedError,
    SchedulerUnavailableError,
    ServerUnreachableError,
)

if TYPE_CHECKING:
    from hpc_agent.api.client import Client
    from hpc_agent.config.load import Configuration
    from hpc_agent.config.settings import AllSettings
    from hpc_agent.logs import LogFormat
    from hpc_agent.retry import Budget
    from hpc_agent.schedulers.base import Backend

LEVELS = ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL")


_PATIENCE = (10.0, 20.0)
"""Seconds for a connection and for a piece of an answer, where a person waits for it."""
_GO_ON = frozenset({"daemon", "follow"})
"""Commands that end after days: their requests are counted meanwhile."""


def exit_code(error: HpcAgentError) -> int:
    """2: correct the command or the configuration; 66: the task is not queued; 69: a service did not answer, try again;
    1: everything else. 66 and 69 as ``sysexits.h`` has them: no input, and unavailable."""
    if isinstance(error, (ConfigError, InputError)):
        return 2
    if isinstance(error, NotQueuedError):
        return 66
    return 69 if isinstance(error, (ServerUnreachableError, SchedulerUnavailableError)) else 1


def fail(error: HpcAgentError, code: int | None = None) -> NoReturn:
    """Print one sentence on stderr and exit, with ``exit_code`` unless ``code`` is given."""
    from hpc_agent.cli.table import one_line
    from hpc_agent.redact import without_credentials

    prefix = click.style("error:", fg="red", bold=True) if sys.stderr.isatty() else "error:"
    # It may quote names and answers of others.
    click.echo(f"{prefix} {one_line(without_credentials(str(error)))}", err=True)
    sys.exit(exit_code(error) if code is None else code)


def from_system(error: OSError, advice: str = "") -> HpcAgentError:
    """Error of the operating system as one sentence; the traceback goes to the log, for --debug."""
    import logging

    logging.getLogger(__name__).debug("refused by the operating system", exc_info=error)
    reason = error.strerror or str(error)
    if drop_broken_output(error):
        return HpcAgentError(f"the output could not be written: {reason}; check where stdout and stderr lead")
    if not error.filename:
        return HpcAgentError(f"the operating system refused: {reason}; `hpc-agent --debug …` logs where")
    return HpcAgentError(f"{error.filename}: {reason}; check this path, its rights and the room on its disk{advice}")


def missing_commands(backend: Backend) -> str:
    """The sentence for a scheduler that is configured, and whose commands are not here."""
    return (
        f"hpc.scheduler is {backend.name}, whose commands are not on PATH: run this command on a login node, or load "
        "the site's module first"
    )


def check_folders(settings: AllSettings) -> None:
    """
    Raises:
        ConfigError: hpc.root is not a folder, or another user can change the programs or records in them.
    """
    from hpc_agent.access import check_private

    root = settings.hpc.root
    if _is_other_than_folder(root):
        raise ConfigError(f"hpc.root is {root}, which is not a folder; name a folder, which need not exist yet")
    check_private(root, "hpc.root")
    for name in ("daemons", "sbatch", "local"):
        check_private(root / name, f"{name} in hpc.root")
    check_private(settings.hpc.runs, "hpc.runs_dir")


def _is_other_than_folder(path: Path) -> bool:
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False  # not there yet, or said later


class Shared:
    """Flags of the whole program, passed to each command."""

    def __init__(self, config_file: Path | None, debug: bool, log_format: LogFormat = "text") -> None:
        self.config_file = config_file
        self.debug = debug
        self.log_format = log_format
        self.program = ""
        """The command that is called, once that is known."""

    def configuration(self, flags: Mapping[str, object] | None = None) -> Configuration:
        """Everything configured, ``flags`` (dotted keys) on top; a value of None is a flag that was not given."""
        from hpc_agent.config.load import load

        given = {key: value for key, value in (flags or {}).items() if value is not None}
        configuration = load(self.config_file, flags=given)
        self._count_requests(configuration)
        return configuration

    def stats_folder(self, configuration: Configuration) -> Path:
        """Where requests are counted."""
        return configuration.settings.hpc.root / "stats"

    def _count_requests(self, configuration: Configuration) -> None:
        from hpc_agent.request_counts import COUNTS
        from hpc_agent.schedulers.registry import QUERY_COMMANDS

        if self.program:
            goes_on = self.program in _GO_ON
            COUNTS.keep(self.stats_folder(configuration), self.program, QUERY_COMMANDS, saves_between=goes_on)

    def save_request_counts(self) -> None:
        """At the end of a command that made any."""
        # Not imported: a command that never read its configuration made none.
        if module := sys.modules.get("hpc_agent.request_counts"):
            module.COUNTS.save_within(2.0)

    def apply(self, configuration: Configuration, *, in_job: bool = False) -> None:
        """Apply the sections ``environment`` and ``files``, for this process and all that it starts.

        ``in_job``: apply what is meant for jobs only too; not in a daemon, whose jobs inherit its environment.

        Raises:
            ConfigError: their values are invalid.
        """
        from hpc_agent.config.apply import apply_environment, apply_files

        if in_job:
            os.environ.update(configuration.settings.hpc.job_environment)
        apply_environment(configuration, os.environ)
        apply_files(configuration, lambda line: click.echo(f"warning: {line}", err=True))

    def client(self, configuration: Configuration, budget: Budget) -> Client:
        from hpc_agent.api.client import Client
        from hpc_agent.api.session import TIMEOUTS
        from hpc_agent.retry import INTERACTIVE

        timeouts = _PATIENCE if budget is INTERACTIVE else TIMEOUTS
        return Client(configuration.settings.api, budget=budget, timeouts=timeouts)

    def start_log(self, level: str = "WARNING", file: Path | None = None) -> None:
        """Log to stderr, or append to ``file``."""
        from hpc_agent import logs

        logs.configure("DEBUG" if self.debug else level, file, self.log_format)


pass_shared = click.make_pass_decorator(Shared)

HELP = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command."""


class FiniteRange(click.FloatRange):
    """Numbers between two others; ``nan``, which compares with none, is not among them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


def print_progress(line: str) -> None:
    """Print on stderr what a long step does."""
    click.echo(line, err=True)


Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _gpus(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    from hpc_agent.domain.gpu_ids import parse_gpus

    return None if value is None else parse_gpus(value)


def not_empty(_context: click.Context, option: click.Parameter, value: str) -> str:
    """
    Raises:
        InputError: a script's variable was not set.
    """
    if not value.strip():
        raise InputError(f"{option.opts[0]} is empty: give the id or name of a task")
    return value


def worker_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that ``daemon``, ``execute`` and ``build`` share."""
    for option in reversed(
        (
            click.option("-O", "optimize", count=True, help="Run optimized byte-code; twice drops docstrings too."),
            click.option("--git-user", help="User for HTTPS git remotes."),
            click.option(
                "--git-pass",
                help="Password or token for HTTPS git remotes. All users of this machine see it in `ps`, but not "
                "CLEARML_AGENT_GIT_PASS or agent.git_pass.",
            ),
            click.option(
                "--log-level", type=click.Choice(LEVELS), default="INFO", show_default=True, help="SDK log level."
            ),
            # ClearML's pages write it both ways.
            click.option(
                *("--gpus", "--gpu", "gpus"), metavar="LIST", callback=_gpus, help="GPUs to use: 0, 0,1, 0-3 or all."
            ),
            click.option("--cpu-only", is_flag=True, help="Hide all GPUs."),
        )
    ):
        command = option(command)
    return command


def docker_option(command: Callable[..., None]) -> Callable[..., None]:
    """``--docker [IMAGE ARGS…]`` of a ``MultiValueCommand``."""
    from hpc_agent.cli.multi_value_options import MultiValueOption

    option = click.option(
        "--docker",
        cls=MultiValueOption,
        metavar="IMAGE ARG",
        unknown_options=True,
        help="Run tasks in containers; IMAGE and its arguments are for tasks that name none (default: the "
        "configuration's agent.default_docker).",
    )
    return option(command)


def docker_configuration(shared: Shared, docker: tuple[str, ...] | None, flags: Mapping[str, object]) -> Configuration:
    """The configuration with ``--docker`` in it: None leaves it as it is, ``()`` takes the configured image.

    Raises:
        InputError: its first value is not an image.
    """
    if docker and docker[0].startswith("-"):
        raise InputError(f"--docker needs an image before its arguments, as in --docker python:3.11 {docker[0]}")
    image: dict[str, object] = {}
    if docker:
        image = {"agent.default_docker.image": docker[0], "agent.default_docker.arguments": list(docker[1:])}
    configuration = shared.configuration({**flags, **image})
    if docker is None or configuration.settings.hpc.container.runtime != "none":
        return configuration
    return shared.configuration({**flags, **image, "hpc.container.runtime": "docker"})


def git_flags(user: str | None, password: str | None) -> dict[str, object]:
    """``--git-user`` and ``--git-pass`` as settings."""
    return {"agent.git_user": user, "agent.git_pass": password}
