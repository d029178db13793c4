"""All services of one ClearML server."""

from __future__ import annotations

from hpc_agent.api.credentials import OwnerTokens, TaskCredentials
from hpc_agent.api.events import EventsApi
from hpc_agent.api.files import FilesApi
from hpc_agent.api.projects import ProjectsApi
from hpc_agent.api.queues import QueuesApi
from hpc_agent.api.session import PATIENCE, ApiSession
from hpc_agent.api.tasks import TasksApi
from hpc_agent.api.workers import WorkersApi
from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.config.settings import ApiSettings
from hpc_agent.domain.ids import TaskId
from hpc_agent.retry import ROUTINE, Budget

_PAGES_CALL_THEM_TASKS = (2, 31)
"""From this API version on; before, web pages had them under ``experiments``."""


class Client:
    """One attribute a service: ``client.queues.get_many([…])``."""

    def __init__(
        self,
        settings: ApiSettings,
        *,
        clock: Clock = SYSTEM,
        budget: Budget = ROUTINE,
        patience: tuple[float, float] = PATIENCE,
    ) -> None:
        """``patience``: seconds that a connection may take, and an answer.

        Raises:
            ConfigError: no server or credentials are configured.
        """
        self.session = ApiSession(settings, clock=clock, budget=budget, patience=patience)
        self.tasks = TasksApi(self.session)
        self.queues = QueuesApi(self.session)
        self.events = EventsApi(self.session)
        self.workers = WorkersApi(self.session, clock)
        self.projects = ProjectsApi(self.session)
        self.files = FilesApi(self.session)
        self.owners = OwnerTokens(self.session)
        self.task_credentials = TaskCredentials(self.session)

    def task_page(self, task: TaskId, project: str) -> str:
        """The link of a task's page, in the form that ``clearml-task`` prints for this server."""
        word = "tasks" if self.session.server_version >= _PAGES_CALL_THEM_TASKS else "experiments"
        return f"{self.session.settings.web_server}/projects/{project or '*'}/{word}/{task}/output/log"
