"""Client of one ClearML server: all services, one attribute each."""

from __future__ import annotations

from hpc_agent.api.credentials import OwnerTokens, TaskCredentials
from hpc_agent.api.events import EventsApi
from hpc_agent.api.files import FilesApi
from hpc_agent.api.projects import ProjectsApi
from hpc_agent.api.queues import QueuesApi
from hpc_agent.api.session import TIMEOUTS, ApiSession
from hpc_agent.api.tasks import TasksApi
from hpc_agent.api.workers import WorkersApi
from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.config.clearml_settings import ApiSettings
from hpc_agent.domain.ids import TaskId
from hpc_agent.retry import ROUTINE, Budget

_TASKS_IN_LINKS = (2, 31)
"""API version from which links of the web page have ``tasks`` in place of ``experiments``."""


class Client:
    """One attribute a service: ``client.queues.get_many([…])``."""

    def __init__(
        self,
        settings: ApiSettings,
        *,
        clock: Clock = SYSTEM,
        budget: Budget = ROUTINE,
        timeouts: tuple[float, float] = TIMEOUTS,
    ) -> None:
        """``timeouts``: seconds for a connection, and for a piece of an answer.

        Raises:
            ConfigError: no server or credentials are configured.
        """
        self._use(ApiSession(settings, clock=clock, budget=budget, timeouts=timeouts), clock)

    @classmethod
    def through(cls, session: ApiSession, clock: Clock = SYSTEM) -> Client:
        """A client of a session that asks in a way of its own."""
        client = cls.__new__(cls)
        client._use(session, clock)
        return client

    def _use(self, session: ApiSession, clock: Clock) -> None:
        self.session = session
        self.tasks = TasksApi(session)
        self.queues = QueuesApi(session)
        self.events = EventsApi(session)
        self.workers = WorkersApi(session, clock)
        self.projects = ProjectsApi(session)
        self.files = FilesApi(session)
        self.owners = OwnerTokens(session)
        self.task_credentials = TaskCredentials(session)

    def task_page(self, task: TaskId, project: str) -> str:
        """The link of a task's page, in the form that ``clearml-task`` prints for this server."""
        section = "tasks" if self.session.server_version >= _TASKS_IN_LINKS else "experiments"
        return f"{self.session.settings.web_server}/projects/{project or '*'}/{section}/{task}/output/log"
