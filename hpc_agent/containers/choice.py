"""Choice of a task's container image and of its arguments. Pure."""

from __future__ import annotations

import re

import msgspec

from hpc_agent.config.clearml_settings import DockerSettings
from hpc_agent.containers.docker_options import ArgumentRules, Merged, merge, split
from hpc_agent.domain.task import TaskContainer
from hpc_agent.errors import ContainerError

_REFERENCE = re.compile(r"(?:[a-z][a-z0-9+-]{0,20}://)?[A-Za-z0-9][\w./:@#%+~-]{0,500}", re.ASCII)
_PATH = re.compile(r"(?:/|~|\.{1,2}/)[^\x00-\x1f\x7f,]{0,4000}")
DEFAULTS = ("--network=host", "--ipc=host", "--user=0:0")
"""What site and task may replace. A container brings software along and locks nothing in: the process must reach the
ClearML server wherever the node does, torch's loaders want more shared memory than docker's 64 MB, and the owner
of the mounted files is root inside (a daemon's root, or the user where podman runs without one)."""


class Choice(msgspec.Struct, frozen=True):
    """``by_task``: the task named the image itself."""

    image: str
    merged: Merged
    setup: tuple[str, ...]
    """Lines of shell to run in the container first."""
    by_task: bool


def choose(container: TaskContainer, docker: DockerSettings) -> Choice | None:
    """None if neither the task nor the configuration names an image.

    Raises:
        ContainerError: the arguments cannot be read, or are not the task's to give.
    """
    by_task = bool(container.image.strip()) and not docker.ignore_task
    # Older clients write the arguments behind the image.
    image, arguments = _image(container.image if by_task else docker.default_image)
    if not image:
        return None
    task_arguments = (*arguments, *split(container.arguments)) if by_task else ()
    site_arguments = split(docker.extra_arguments)
    default = split(docker.default_arguments)
    if not by_task:
        site_arguments = (*site_arguments, *arguments, *default)
    rules = ArgumentRules(docker.protected, default, docker.forbidden, split(docker.filters), docker.allowed)
    return Choice(image, merge(DEFAULTS, site_arguments, task_arguments, rules), _setup(container, docker), by_task)


def _image(text: str) -> tuple[str, tuple[str, ...]]:
    """
    Raises:
        ContainerError: what should be an image would be taken for an option, or is the name of none.
    """
    words = split(text)
    if not words:
        return "", ()
    _, _, location = words[0].rpartition("://")
    if words[0].startswith("-") or location.startswith("-"):
        raise ContainerError(f"{words[0]!r} is not a container image: name one such as python:3.11")
    if not (_REFERENCE.fullmatch(words[0]) or _PATH.fullmatch(words[0])):
        raise ContainerError(
            f"{words[0]!r} is not a container image: it contains characters that no image name has; name one such as "
            "python:3.11, or a file by its whole path"
        )
    return words[0], words[1:]


def _setup(container: TaskContainer, docker: DockerSettings) -> tuple[str, ...]:
    extra = docker.extra_shell_script
    site_lines = extra.splitlines() if isinstance(extra, str) else extra
    return tuple(line for line in (*site_lines, *container.setup_shell_script.splitlines()) if line.strip())
