"""All services of one ClearML server."""

from __future__ import annotations

from hpc_agent.api.events import Events
from hpc_agent.api.files import Files
from hpc_agent.api.owners import Owners
from hpc_agent.api.projects import Projects
from hpc_agent.api.queues import Queues
from hpc_agent.api.session import PATIENCE, Session
from hpc_agent.api.task_credentials import TaskCredentials
from hpc_agent.api.tasks import Tasks
from hpc_agent.api.workers import Workers
from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.config.settings import ApiSettings
from hpc_agent.domain.ids import TaskId
from hpc_agent.retry import ROUTINE, Budget

_PAGES_CALL_THEM_TASKS = (2, 31)
"""From this API version on; before, web pages had them under ``experiments``."""


class Client:
    """One attribute a service: ``client.queues.look([…])``."""

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
        self.session = Session(settings, clock=clock, budget=budget, patience=patience)
        self.tasks = Tasks(self.session)
        self.queues = Queues(self.session)
        self.events = Events(self.session)
        self.workers = Workers(self.session, clock)
        self.projects = Projects(self.session)
        self.files = Files(self.session)
        self.owners = Owners(self.session)
        self.task_credentials = TaskCredentials(self.session)

    def task_page(self, task: TaskId, project: str) -> str:
        """The link of a task's page, in the form that ``clearml-task`` prints for this server."""
        word = "tasks" if self.session.server_version >= _PAGES_CALL_THEM_TASKS else "experiments"
        return f"{self.session.settings.web_server}/projects/{project or '*'}/{word}/{task}/output/log"
