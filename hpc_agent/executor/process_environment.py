"""Environment of the user's process, on the node and in a container. Pure.

See docs/internals/clearml-protocol.md#process-environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hpc_agent import utf8_mode
from hpc_agent.config.clearml_settings import AgentSettings
from hpc_agent.containers.docker_options import DockerOption, Merged
from hpc_agent.containers.gpu_share import GpuShare
from hpc_agent.containers.runtime_api import Mount
from hpc_agent.domain.ids import WorkerId
from hpc_agent.domain.task import Task
from hpc_agent.errors import InputError
from hpc_agent.redact import Secret

_NO_TOKEN = Secret("")
_LONGEST_VALUE = 128 * 1024 - 1024
"""Of a variable with its name (MAX_ARG_STRLEN), less a kilobyte for the name."""

FORWARDED_PREFIXES = (
    *("CLEARML_", "TRAINS_", "CUDA_", "NVIDIA_"),
    *("PMI", "OMPI_MCA_", "UCX_", "NCCL_", "OMP_", "MKL_", "OPENBLAS_"),
    *("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK"),
    *("AWS_", "AZURE_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("TZ", "LANG", "LC_"),
)
"""Prefixes of names that containers get: the task's identity, where it runs, how its processes find each other and
their storage. Paths of this node mean nothing inside, and its libraries must not be loaded there."""

BLOCKED_PREFIXES = ("CLEARML_CONFIG_FILE", "TRAINS_CONFIG_FILE", "CLEARML_AGENT_", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE")
FORWARDED_NAMES = ("CLEARML_AGENT_GIT_USER", "CLEARML_AGENT_GIT_PASS", "CLEARML_AGENT_GIT_HOST")


class ProcessContext(msgspec.Struct, frozen=True):
    """Inputs that the environment depends on, apart from the one that this process inherited."""

    task: Task
    worker: WorkerId
    log_level: str
    config_file: Path | None
    script_dir: Path
    root: Path
    bin_dir: Path | None
    """``bin`` of the task's Python environment."""
    auth_token: Secret = _NO_TOKEN
    """In place of keys: the SDK reads keys from the configuration, a token from a variable only."""
    gpus: str | None = None
    """``--gpus``: indexes or ``all``; ``none`` for ``--cpu-only``; None leaves the scheduler's choice."""


def process_environment(inherited: Mapping[str, str], context: ProcessContext, agent: AgentSettings) -> dict[str, str]:
    """``inherited`` with what the SDK in the process and the task expect.

    Raises:
        InputError: a variable that the task wants cannot be one.
    """
    environ = {name: value for name, value in inherited.items() if not name.startswith("HPC_AGENT_")}
    for name, value in _for_sdk(context).items():
        environ[f"CLEARML_{name}"] = environ[f"TRAINS_{name}"] = value
    environ["CLEARML_WORKER_ID"] = context.worker
    if len(context.auth_token):
        environ["CLEARML_AUTH_TOKEN"] = context.auth_token.reveal()
    environ["PYTHONPATH"] = _python_path(environ.get("PYTHONPATH", ""), context, agent)
    environ["PYTHONUNBUFFERED"] = "1"
    # Source and console are UTF-8 where most tasks are written, and so they are here, whatever the node's locale.
    environ.setdefault(utf8_mode.VARIABLE, "1")
    if context.bin_dir is not None:
        environ["VIRTUAL_ENV"] = str(context.bin_dir.parent)
        environ["PATH"] = ":".join([str(context.bin_dir), *filter(None, [environ.get("PATH", "")])])
        environ.pop("PYTHONHOME", None)
    _set_gpus(environ, context.gpus)
    if agent.enable_task_env:
        environ.update(_task_variables(context.task))
    return environ


def _task_variables(task: Task) -> Mapping[str, str]:
    """Variables of the task's section ``Environment``.

    Raises:
        InputError: a variable is not possible.
    """
    for name, value in task.environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise InputError(
                f"the task's hyper-parameter {name!r} in the section Environment cannot be a variable of its process: "
                "a name is not empty and has no =, neither it nor its value has a NUL; rename or remove it"
            )
        if len(value.encode("utf-8", "surrogateescape")) > _LONGEST_VALUE:
            raise InputError(
                f"the task's hyper-parameter {name!r} in the section Environment is too long for a variable "
                f"({len(value)} characters; Linux takes {_LONGEST_VALUE} bytes): put it into a file or an artifact"
            )
    return task.environment


def _for_sdk(context: ProcessContext) -> dict[str, str]:
    values = {
        # This alone makes the SDK run as a task of an agent.
        "TASK_ID": context.task.id,
        "LOG_LEVEL": context.log_level,
        # The console is ours to send.
        "LOG_TASK_TO_BACKEND": "0",
    }
    if context.config_file is not None:
        values["CONFIG_FILE"] = str(context.config_file)
    return values


def _python_path(inherited: str, context: ProcessContext, agent: AgentSettings) -> str:
    own = context.root if agent.force_git_root_python_path else context.script_dir
    parts: Sequence[str] = [*inherited.split(":"), str(own), *agent.extra_python_path.split(":")]
    return ":".join(dict.fromkeys(part for part in parts if part))


def _set_gpus(environ: dict[str, str], gpus: str | None) -> None:
    environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if gpus == "all":
        environ["NVIDIA_VISIBLE_DEVICES"] = "all"
        environ.pop("CUDA_VISIBLE_DEVICES", None)
    elif gpus is not None:
        # MIG devices are written 0.1 on the command line, 0:1 for the driver.
        environ["NVIDIA_VISIBLE_DEVICES"] = environ["CUDA_VISIBLE_DEVICES"] = gpus.replace(".", ":")
    elif "CUDA_VISIBLE_DEVICES" in environ:
        environ.setdefault("NVIDIA_VISIBLE_DEVICES", environ["CUDA_VISIBLE_DEVICES"])


def forwarded_environment(environ: Mapping[str, str], job_prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """Variables of this process that a container gets too. ``job_prefixes``: of the scheduler's own variables."""
    prefixes = FORWARDED_PREFIXES + job_prefixes
    return {
        name: value
        for name, value in environ.items()
        if name in FORWARDED_NAMES or (name.startswith(prefixes) and not name.startswith(BLOCKED_PREFIXES))
    }


def set_gpus(environ: dict[str, str], gpus: GpuShare, *, skip_flag: bool) -> None:
    """Set the variables for a runtime that passes GPUs in and numbers them from 0 again.

    ``skip_flag``: the runtime got no argument about GPUs, and its own set-up reads the variable instead.
    """
    environ.pop("CUDA_VISIBLE_DEVICES", None)
    environ.pop("NVIDIA_VISIBLE_DEVICES", None)
    if not gpus:
        environ["NVIDIA_VISIBLE_DEVICES"] = "none"
    elif skip_flag:
        environ["NVIDIA_VISIBLE_DEVICES"] = "all" if gpus.all else ",".join(gpus.devices)


class ForwardedEnvironment(msgspec.Struct, frozen=True):
    """docker's arguments, translated for a runtime that has its own."""

    mounts: tuple[Mount, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def translate(merged: Merged, environ: Mapping[str, str], *, ours: frozenset[str]) -> ForwardedEnvironment:
    """Translate mounts and variables; other arguments are left out, with a note each unless they are in ``ours``."""
    mounts: list[Mount] = []
    variables = list(merged.environment)
    notes: list[str] = []
    for option in merged.options:
        mount = _mount(option)
        if mount is not None:
            mounts.append(mount)
        elif option.name == "env":
            variables += [(option.value, environ[option.value])] if option.value in environ else []
        elif " ".join(option.words) not in ours:
            notes.append(f"The container argument {' '.join(option.words)} means nothing to this runtime: left out")
    return ForwardedEnvironment(tuple(mounts), tuple(variables), tuple(notes))


def _mount(option: DockerOption) -> Mount | None:
    """``-v /a:/b:ro`` and ``--mount type=bind,source=/a,target=/b,readonly``; None for named volumes and the rest."""
    if option.name == "volume":
        source, _, rest = option.value.partition(":")
        target, _, mode = rest.partition(":")
        target = target or source
        writable = "ro" not in mode.split(",")
    elif option.name == "mount":
        words = {word.partition("=")[0]: word.partition("=")[2] for word in option.value.split(",")}
        source = words.get("source") or words.get("src") or ""
        target = words.get("target") or words.get("destination") or words.get("dst") or ""
        writable = not {"readonly", "ro"} & set(words)
    else:
        return None
    if not source.startswith("/") or not target.startswith("/"):
        return None
    return Mount(Path(source), target, writable)
