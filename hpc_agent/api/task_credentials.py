"""Key pairs of single tasks, which the embedded server makes and ends (docs/server.md)."""

from __future__ import annotations

from hpc_agent.api.session import ApiSession
from hpc_agent.api.users import KeyPair
from hpc_agent.domain.ids import TaskId
from hpc_agent.errors import ApiError, InputError
from hpc_agent.redact import Secret


class TaskCredentials:
    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def offered(self) -> bool:
        """Whether this server makes them; its tokens say so."""
        return self._session.claims.get("task_credentials") is True

    def create(self, task: TaskId) -> KeyPair:
        """A new key pair of the task's.

        Raises:
            InputError: the server refuses: the task has ended, or is another user's.
            ServerUnreachableError: no usable answer.
        """
        try:
            # Made twice is as good as once: each of them ends with the task.
            pair = self._session.call("auth.create_task_credentials", {"task": task})["credentials"]
        except ApiError as error:
            raise InputError(f"the server gives no credentials for a job of task {task}: {error}") from error
        return KeyPair(str(pair["access_key"]), Secret(str(pair["secret_key"])))
