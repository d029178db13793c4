"""``--use-owner-token``: each job calls the server as the owner of its task.

The token reaches it in a file of its own in the run directory, readable by us alone; it stands in no argument list and
no exported environment.
"""

from __future__ import annotations

from hpc_agent.api.client import Client
from hpc_agent.config.dump import write_job_config
from hpc_agent.config.load import Configuration
from hpc_agent.domain.task import Task
from hpc_agent.runs.directory import RunDirectory


class OwnerConfigs:
    def __init__(self, client: Client, configuration: Configuration) -> None:
        self._client = client
        self._configuration = configuration

    def write(self, task: Task, directory: RunDirectory) -> None:
        """Put the owner's token into ``directory.owner_config``, in place of our own credentials.

        Raises:
            InputError: the server gives none.
            ServerUnreachableError: no usable answer.
        """
        token = self._client.owners.token(task.user)
        changes = {"api.credentials": {}, "api.auth_token": token.reveal(), "agent.worker_id": ""}
        write_job_config(self._configuration, directory.owner_config, changes)
