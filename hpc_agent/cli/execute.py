"""``hpc-agent execute``: one task on this machine, from a compute job or by hand."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from hpc_agent.cli.job_relay import job_relay
from hpc_agent.cli.multi_value_options import MultiValueCommand
from hpc_agent.cli.shared_options import (
    HELP,
    Shared,
    check_folders,
    docker_configuration,
    docker_option,
    git_flags,
    not_empty,
    pass_shared,
    worker_flags,
)

if TYPE_CHECKING:
    from hpc_agent.api.client import Client
    from hpc_agent.domain.ids import TaskId


@click.command(cls=MultiValueCommand, context_settings=HELP)
@click.option("--id", "task", required=True, callback=not_empty, metavar="TASK", help="Id or name of the task.")
@click.option("--log-file", type=click.Path(dir_okay=False, path_type=Path), help="Keep the console in this file too.")
@click.option("--disable-monitoring", is_flag=True, help="Send no console to the server; print it only.")
@click.option("--full-monitoring", is_flag=True, help="Send the set-up's log too (always done).")
@click.option("--require-queue", is_flag=True, help="Take the task off its queue, or fail with 66 if it is not queued.")
@click.option("--standalone-mode", is_flag=True, help="No package index, no git remote: all from the shared cache.")
@click.option("--clone", is_flag=True, help="Clone the task and run the clone.")
@click.option("--node-of", type=click.Path(path_type=Path), hidden=True, help="In a job of many nodes: be one of them.")
@click.option(
    "--container-launch",
    type=click.Choice(["apptainer", "pyxis"]),
    help="Run in a container that the job's script starts (written by templates in the form of ClearML's Slurm glue).",
)
@docker_option
@worker_flags
@pass_shared
def command(
    shared: Shared,
    task: str,
    log_file: Path | None,
    disable_monitoring: bool,
    full_monitoring: bool,
    require_queue: bool,
    standalone_mode: bool,
    clone: bool,
    node_of: Path | None,
    container_launch: str | None,
    docker: tuple[str, ...] | None,
    optimize: int,
    git_user: str | None,
    git_pass: str | None,
    log_level: str,
    gpus: str | None,
    cpu_only: bool,
) -> None:
    """Run one task here and exit with its exit code.

    With --require-queue exactly one of all that try runs a queued task. The others leave it alone and exit with 66, as
    they do for a task that is not queued; only a job that the daemon submitted ends with 0 then.
    """
    with ExitStack() as stack:
        # Imports leave no garbage, and looking for it takes 20 ms.
        stack.callback(gc.enable)
        gc.disable()
        from hpc_agent.clock import SYSTEM
        from hpc_agent.retry import ROUTINE
        from hpc_agent.schedulers.pilots.gate import wait_at_gate

        shared.start_log("INFO")
        launch = {"hpc.container.runtime": container_launch} if container_launch else {}
        configuration = docker_configuration(shared, docker, {**git_flags(git_user, git_pass), **launch})
        shared.apply(configuration, in_job=True)
        stack.enter_context(job_relay(configuration.settings))
        prefetch = None
        if standalone_mode and node_of is None:
            from hpc_agent.executor.prefetch import begin_prefetch

            prefetch = begin_prefetch(configuration.settings, os.environ, SYSTEM)
        client = shared.client(configuration, ROUTINE)
        client.session.begin_login()  # the server answers while the rest is imported

        from hpc_agent.executor.agent_identity import identify
        from hpc_agent.executor.execution import Executor
        from hpc_agent.executor.prepare import ExecuteOptions
        from hpc_agent.executor.task_run import ExecutionOptions

        gc.freeze()
        gc.enable()
        identity = identify(configuration.settings)
        execute_options = ExecuteOptions(
            standalone_mode,
            optimize,
            log_level,
            "none" if cpu_only or configuration.settings.agent.cpu_only else gpus,
            docker=docker is not None or container_launch is not None,
            template_launch=container_launch is not None,
        )
        if node_of is not None:
            from hpc_agent.executor.node_agent import NodeAgent
            from hpc_agent.runs.directory import RunDirectory

            parts = (client, configuration, identity, execute_options, SYSTEM, RunDirectory(node_of))
            sys.exit(NodeAgent(*parts, ship=not disable_monitoring).run())
        executor = Executor(client, configuration, identity, execute_options, SYSTEM)
        if not wait_at_gate():
            return
        if not identity.daemon_managed:
            check_folders(configuration.settings)
        from_queue = require_queue and not clone
        task_id = _resolve(client, task, from_queue=from_queue and not identity.daemon_managed)
        if clone:
            task_id = _cloned(client, task_id)
        echoes: list[IO[bytes]] = [] if identity.daemon_managed else [sys.stdout.buffer]
        if log_file is not None:
            echoes.append(stack.enter_context(_open(log_file)))
        code = executor.execute(task_id, ExecutionOptions(from_queue, not disable_monitoring, tuple(echoes)), prefetch)
    sys.exit(code)


def _resolve(client: Client, task: str, *, from_queue: bool) -> TaskId:
    from hpc_agent.errors import NotQueuedError, UnknownTaskError

    try:
        return client.tasks.resolve(task)
    except UnknownTaskError as error:
        if from_queue:
            raise NotQueuedError(str(error)) from error
        raise


def _cloned(client: Client, task: TaskId) -> TaskId:
    clone = client.tasks.clone(task, f"Clone of {client.tasks.get(task).name}")
    click.echo(f"Running the clone {clone}", err=True)
    return clone


def _open(path: Path) -> IO[bytes]:
    from hpc_agent.errors import InputError

    try:
        return path.open("ab")
    except OSError as error:
        raise InputError(f"the log file {path} cannot be written: {error.strerror}") from error
