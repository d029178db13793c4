"""A task that is created in several steps: if one fails, the task is deleted again, or its page is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hpc_agent.api.client import Client
from hpc_agent.domain.ids import TaskId
from hpc_agent.errors import HpcAgentError, ServerUnreachableError


class DraftError(HpcAgentError):
    """Something failed when the task existed already; the message says what became of it."""


@contextmanager
def or_undone(client: Client, task: TaskId, page: str) -> Iterator[None]:
    """
    Raises:
        DraftError: a step inside failed.
    """
    try:
        yield
    except HpcAgentError as error:
        raise DraftError(f"{error}; {_undo(client, task, page, error)}") from error


def _undo(client: Client, task: TaskId, page: str, error: HpcAgentError) -> str:
    """Delete the task unless the failed step may have happened all the same; returns what became of it."""
    if isinstance(error, ServerUnreachableError) and error.uncertain:
        return f"the task {task} was created, and the server may have carried out the rest: look at {page}"
    try:
        client.tasks.delete(task)
    except HpcAgentError:
        return f"the task {task} was created and is left as it is: {page}"
    return "the task was created and deleted again"
