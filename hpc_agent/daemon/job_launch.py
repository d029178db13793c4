"""Launch of jobs: how each job calls this program, with which configuration, and which limits its queue sets.

A job's configuration is a file of its own in the run directory, readable by its owner alone; what is in it is in no
argument list and no exported environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpc_agent.api.client import Client
from hpc_agent.config.dump import write_job_config
from hpc_agent.config.load import Configuration
from hpc_agent.config.settings import HpcSettings
from hpc_agent.daemon.options import DaemonOptions, JobNaming
from hpc_agent.domain.snapshot import AttemptPolicy
from hpc_agent.domain.task import Task
from hpc_agent.runs.directory import RunDirectory


@dataclass(frozen=True)
class JobLaunchConfig:
    """Server and keys are in ``config_file``, readable by its owner only; ``agent`` is the program as a list."""

    config_file: Path
    agent: Sequence[str]
    options: DaemonOptions
    naming: JobNaming
    job_configs: JobConfigs | None = None
    """Where jobs call the server with credentials of their own."""


class JobConfigs(Protocol):
    """Writes a configuration for each job."""

    def write(self, task: Task, directory: RunDirectory) -> None:
        """Write ``directory.owner_config``.

        Raises:
            InputError: the server gives no credentials for it.
            ServerUnreachableError: no usable answer.
        """


class OwnerConfigs:
    """``--use-owner-token``: a token of the task's owner, in place of our own credentials."""

    def __init__(self, client: Client, configuration: Configuration) -> None:
        self._client = client
        self._configuration = configuration

    def write(self, task: Task, directory: RunDirectory) -> None:
        token = self._client.owners.token(task.user)
        changes = {"api.credentials": {}, "api.auth_token": token.reveal(), "agent.worker_id": ""}
        write_job_config(self._configuration, directory.owner_config, changes)


class TaskConfigs:
    """A key pair of the task's own, which ends with the task, in place of our own credentials."""

    def __init__(self, client: Client, configuration: Configuration) -> None:
        self._client = client
        self._configuration = configuration

    def write(self, task: Task, directory: RunDirectory) -> None:
        pair = self._client.task_credentials.create(task.id)
        keys = {"access_key": pair.access_key, "secret_key": pair.secret_key.reveal()}
        changes = {"api.credentials": keys, "api.auth_token": "", "agent.worker_id": ""}
        write_job_config(self._configuration, directory.owner_config, changes)


def job_configs(client: Client, configuration: Configuration, *, owner_tokens: bool) -> JobConfigs | None:
    """How each job gets credentials of its own; None where the server has none and jobs share ours."""
    if owner_tokens:
        return OwnerConfigs(client, configuration)
    return TaskConfigs(client, configuration) if client.task_credentials.offered() else None


_PATIENCE_S = 60.0


def rules(hpc: HpcSettings, queue: str) -> AttemptPolicy:
    """``queue`` by name. A site that calls jobs lost sooner is less patient with all else too."""
    settings = hpc.queue(queue)
    lost_after = hpc.lost_after
    return AttemptPolicy(
        look_up_seconds=min(_PATIENCE_S, lost_after),
        requeue_after=min(_PATIENCE_S, lost_after),
        lost_after=lost_after,
        stop_grace=hpc.term_grace + 40,
        requeue_on_time_limit=settings.on_time_limit == "requeue",
        max_restarts=settings.max_restarts,
    )
