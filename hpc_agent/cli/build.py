"""``hpc-agent build``: a task made ready to run later, as a folder or as a container image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.multi_value_options import MultiValueCommand
from hpc_agent.cli.shared_options import (
    HELP,
    Shared,
    docker_configuration,
    docker_option,
    git_flags,
    not_empty,
    pass_shared,
    print_progress,
    worker_flags,
)
from hpc_agent.errors import ContainerUnavailableError, InputError

if TYPE_CHECKING:
    from hpc_agent.config.load import Configuration
    from hpc_agent.domain.task import Task

ENTRY_POINTS = ("reuse_task", "clone_task")
_SHORT = {"reuse": "reuse_task"}
"""As ClearML's page calls one of them."""
_PYTHON = re.compile(r"^(?:python)?(?P<version>\d+(?:\.\d+){0,2})$")


@click.command(cls=MultiValueCommand, context_settings=HELP)
@click.option(
    "--id", "--task-id", "task_name", required=True, callback=not_empty, metavar="TASK", help="Id or name of the task."
)
@click.option(
    "--target",
    help="Folder to make (default: <hpc.root>/builds/<id>); with --docker the image's name (default: task_id_<id>) or "
    "a file x.sif for Apptainer.",
)
@click.option(
    "--install-globally",
    is_flag=True,
    help="Install packages into the Python interpreter itself, which the environment then sees; always so in images.",
)
@docker_option
@click.option("--force-docker", is_flag=True, help="Take the image of --docker or the configuration, not the task's.")
@click.option("--python-version", metavar="VERSION", help="Python of the environment, such as 3.11.")
@click.option(
    "--entry-point",
    type=click.Choice([*ENTRY_POINTS, *_SHORT]),
    metavar="[reuse_task|clone_task]",
    callback=lambda _context, _option, value: _SHORT.get(value, value),
    help="With --docker: the image runs the task when it starts, or a clone of it each time.",
)
@worker_flags
@pass_shared
def command(
    shared: Shared,
    task_name: str,
    target: str | None,
    install_globally: bool,
    docker: tuple[str, ...] | None,
    force_docker: bool,
    python_version: str | None,
    entry_point: str | None,
    optimize: int,
    git_user: str | None,
    git_pass: str | None,
    log_level: str,
    gpus: str | None,
    cpu_only: bool,
) -> None:
    """Make a task ready to run later, without running it and without changing it.

    The folder holds environment, code and a script `run`, can be moved, and needs no network. With --docker it is an
    image with the same in it.
    """
    if docker is None and target and target.endswith(".sif"):
        docker = ()
    if docker is None and (entry_point or force_docker):
        raise click.UsageError("--entry-point and --force-docker are about images: give --docker too")
    from hpc_agent.retry import INTERACTIVE

    shared.start_log()
    flags: dict[str, object] = git_flags(git_user, git_pass)
    if docker is None:
        flags |= {"hpc.container.runtime": "none"}
        if install_globally:
            flags |= {"agent.package_manager.system_site_packages": True}
    else:
        flags |= _image_flags(shared, target, force_docker)
    configuration = docker_configuration(shared, docker, flags)
    shared.apply(configuration)
    client = shared.client(configuration, INTERACTIVE)
    task = _with_python(client.tasks.get(client.tasks.resolve(task_name)), python_version, configuration)
    options = ["-" + "O" * optimize] if optimize else []
    visible = "none" if cpu_only else gpus
    if docker is None:
        _folder(configuration, task, target, install_globally, options, log_level, visible)
    else:
        arguments = [*options, "--log-level", log_level]
        _image(configuration, task, target, entry_point or "", arguments, visible)


def _image_flags(shared: Shared, target: str | None, force: bool) -> dict[str, object]:
    flags: dict[str, object] = {"agent.disable_task_docker_override": True} if force else {}
    configured = shared.configuration().settings.hpc.container.runtime
    if target and target.endswith(".sif"):
        flags["hpc.container.runtime"] = "apptainer"
    elif configured not in ("docker", "podman"):
        flags["hpc.container.runtime"] = "docker"
    return flags


def _with_python(task: Task, version: str | None, configuration: Configuration) -> Task:
    """The task as it would be had it asked for that Python.

    Raises:
        InputError: it is not a version, or is not installed here.
    """
    from msgspec.structs import replace

    from hpc_agent.envs import interpreter

    if version is None:
        return task
    match = _PYTHON.match(version)
    if match is None:
        raise InputError(f"--python-version is {version!r}, expected a version such as 3.11")
    wanted = ".".join(match["version"].split(".")[:2])
    settings = configuration.settings
    if settings.hpc.container.runtime == "none":
        found = interpreter.find(wanted if "." in wanted else "", settings.python_packages, lambda _: None)
        if found.minor != wanted and not found.minor.startswith(f"{wanted}."):
            raise InputError(f"Python {wanted} is not on this machine, nor is any name of it on PATH")
    return replace(task, script=replace(task.script, binary=f"python{wanted}"))


def _folder(
    configuration: Configuration,
    task: Task,
    target: str | None,
    globally: bool,
    options: list[str],
    log_level: str,
    gpus: str | None,
) -> None:
    from hpc_agent.bundles.folder import FolderBuilder, FolderOptions
    from hpc_agent.clock import SYSTEM
    from hpc_agent.staging import TaskStager

    settings = configuration.settings
    folder = Path(target).expanduser() if target else settings.hpc.root / "builds" / task.id
    exports = {"CLEARML_LOG_LEVEL": log_level, "TRAINS_LOG_LEVEL": log_level, "PYTHONUNBUFFERED": "1"}
    if gpus is not None:
        exports |= {"NVIDIA_VISIBLE_DEVICES": gpus}
        exports |= {} if gpus == "all" else {"CUDA_VISIBLE_DEVICES": gpus.replace(".", ":")}
    builder = FolderBuilder(TaskStager(settings, SYSTEM, share=False), print_progress)
    built = builder.build(task, folder.absolute(), FolderOptions(options, exports, globally))
    click.echo(f"Restoring running environment of task id [{task.id}]:")
    if built.packages:
        click.echo("Summary - installed python packages:")
        click.echo("\n".join(["pip:", *(f"- {package}" for package in built.packages)]))
    else:
        click.echo("No freeze information available")
    click.echo(f"Virtual environment: {built.bin}")
    click.echo(f"Source code: {built.source}")
    click.echo(f"Entry point: {built.entry}")
    click.echo(f"Run it with: {built.folder / 'run'}")


def _image(
    configuration: Configuration, task: Task, target: str | None, entry: str, arguments: list[str], gpus: str | None
) -> None:
    import os

    from hpc_agent.bundles.image import ImageBuilder, ImageOptions
    from hpc_agent.clock import SYSTEM
    from hpc_agent.containers.gpu_share import maker_of_node, share
    from hpc_agent.file_records import private_folder
    from hpc_agent.schedulers.backends import job_variables
    from hpc_agent.staging import TaskStager

    settings = configuration.settings
    job = job_variables()
    stager = TaskStager(settings, SYSTEM, share=False)
    try:
        image = stager.stage_image(task, print_progress)
    except ContainerUnavailableError as error:
        remedy = (
            ""
            if settings.hpc.container.runtime not in ("apptainer", "singularity")
            else "; without .sif, docker or podman make an image"
        )
        raise InputError(f"{error}{remedy}") from error
    if image is None:
        raise InputError(
            "--docker names no image, nor does the task or agent.default_docker.image: give one, as in "
            "--docker python:3.11"
        )
    api = settings.api
    servers = {
        "CLEARML_API_HOST": api.api_server,
        "CLEARML_WEB_HOST": api.web_server,
        "CLEARML_FILES_HOST": api.files_server,
    }
    image_options = ImageOptions(
        target=target or f"task_id_{task.id}",
        entry=entry,
        arguments=arguments,
        servers=servers,
        gpus=share(gpus, os.environ, maker=maker_of_node(), job_variables=job.gpu_variables if job else ()),
    )
    result = ImageBuilder(stager, private_folder(settings.hpc.scratch), print_progress).build(
        task, image, image_options
    )
    click.echo(f"Built {result} from {image.choice.image} for task {task.id}")
    if entry:
        what = "a clone of the task" if entry == "clone_task" else "the task"
        click.echo(f"Started, it runs {what}; it wants credentials, as its /opt/hpc-agent/entry describes")
