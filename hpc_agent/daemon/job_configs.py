"""The configuration of a job that calls the server with other credentials than ours.

It is a file of its own in the run directory, readable by us alone; what is in it stands in no argument list and no
exported environment.
"""

from __future__ import annotations

from typing import Protocol

from hpc_agent.api.client import Client
from hpc_agent.config.dump import write_job_config
from hpc_agent.config.load import Configuration
from hpc_agent.domain.task import Task
from hpc_agent.runs.directory import RunDirectory


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
