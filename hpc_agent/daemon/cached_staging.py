"""Staging with ``--standalone-mode``: what the shared cache has, and nothing else."""

from __future__ import annotations

from hpc_agent.daemon.login_staging import PREPARING
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.task import Task
from hpc_agent.staging import StagedTask, TaskStager, wrap_unexpected


class CachedStaging:
    """As ``stage.Stages``: every answer is there at once, and what is missing is an error that names it."""

    def __init__(self, stager: TaskStager) -> None:
        self._stager = stager

    def get(self, attempt: Attempt, task: Task, queue: Queue, *, wait: bool) -> StagedTask:
        return wrap_unexpected(lambda: self._stager.find(task))

    def says(self, attempt: Attempt) -> str:
        return PREPARING

    def drop(self, attempt: Attempt) -> None:
        """Nothing is staged."""

    def close(self) -> None:
        """Nothing runs."""
