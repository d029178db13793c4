"""The environment variables of the user's process (docs/internals/clearml-protocol.md#process-environment). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent import utf8_mode
from hpc_agent.config.settings import AgentSettings
from hpc_agent.domain.ids import WorkerId
from hpc_agent.domain.task import Task
from hpc_agent.errors import InputError
from hpc_agent.redact import Secret

_NO_TOKEN = Secret("")
_LONGEST_VALUE = 128 * 1024 - 1024
"""Of a variable with its name (MAX_ARG_STRLEN), less a kilobyte for the name."""


@dataclass(frozen=True)
class ProcessContext:
    """What the environment depends on besides the one we inherited."""

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
    """``--gpus``: indexes or ``all``; ``none`` for ``--cpu-only``; None leaves Slurm's choice."""


def process_environment(inherited: Mapping[str, str], launch: ProcessContext, agent: AgentSettings) -> dict[str, str]:
    """``inherited`` with what the SDK in the process and the task expect.

    Raises:
        InputError: a variable that the task wants cannot be one.
    """
    environ = {name: value for name, value in inherited.items() if not name.startswith("HPC_AGENT_")}
    for name, value in _for_sdk(launch).items():
        environ[f"CLEARML_{name}"] = environ[f"TRAINS_{name}"] = value
    environ["CLEARML_WORKER_ID"] = launch.worker
    if len(launch.auth_token):
        environ["CLEARML_AUTH_TOKEN"] = launch.auth_token.reveal()
    environ["PYTHONPATH"] = _python_path(environ.get("PYTHONPATH", ""), launch, agent)
    environ["PYTHONUNBUFFERED"] = "1"
    # As where the task was written, mostly: its source and its console are UTF-8, whatever the node's locale.
    environ.setdefault(utf8_mode.VARIABLE, "1")
    if launch.bin_dir is not None:
        environ["VIRTUAL_ENV"] = str(launch.bin_dir.parent)
        environ["PATH"] = ":".join([str(launch.bin_dir), *filter(None, [environ.get("PATH", "")])])
        environ.pop("PYTHONHOME", None)
    _set_gpus(environ, launch.gpus)
    if agent.enable_task_env:
        environ.update(_wanted(launch.task))
    return environ


def _wanted(task: Task) -> Mapping[str, str]:
    """What the task's section ``Environment`` sets.

    Raises:
        InputError: no process can have it.
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


def _for_sdk(launch: ProcessContext) -> dict[str, str]:
    values = {
        # This alone makes the SDK run as a task of an agent.
        "TASK_ID": launch.task.id,
        "LOG_LEVEL": launch.log_level,
        # The console is ours to send.
        "LOG_TASK_TO_BACKEND": "0",
    }
    if launch.config_file is not None:
        values["CONFIG_FILE"] = str(launch.config_file)
    return values


def _python_path(inherited: str, launch: ProcessContext, agent: AgentSettings) -> str:
    own = launch.root if agent.force_git_root_python_path else launch.script_dir
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
