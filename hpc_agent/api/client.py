"""All services of one ClearML server."""

from __future__ import annotations

from hpc_agent.api.events import Events
from hpc_agent.api.projects import Projects
from hpc_agent.api.queues import Queues
from hpc_agent.api.session import Session
from hpc_agent.api.tasks import Tasks
from hpc_agent.api.workers import Workers
from hpc_agent.clock import SYSTEM, Clock
from hpc_agent.config.settings import ApiSettings
from hpc_agent.domain.ids import TaskId
from hpc_agent.retry import ROUTINE, Budget


class Client:
    """One attribute a service: ``client.queues.look([…])``."""

    def __init__(self, settings: ApiSettings, *, clock: Clock = SYSTEM, budget: Budget = ROUTINE) -> None:
        """
        Raises:
            ConfigError: no server or credentials are configured.
        """
        self.session = Session(settings, clock=clock, budget=budget)
        self.tasks = Tasks(self.session)
        self.queues = Queues(self.session)
        self.events = Events(self.session)
        self.workers = Workers(self.session, clock)
        self.projects = Projects(self.session)

    def task_page(self, task: TaskId, project: str) -> str:
        """The link of a task's page, in the form that ``clearml-task`` prints."""
        return f"{self.session.settings.web_server}/projects/{project or '*'}/experiments/{task}/output/log"
