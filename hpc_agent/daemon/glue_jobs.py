"""Jobs whose template is in the form of ClearML's Slurm glue: the facts it may name, and what limits hold for it."""

from __future__ import annotations

from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.config.resource_settings import QueueSettings
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.options import JobNaming
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.resources import Policy, Resources
from hpc_agent.domain.task import Task
from hpc_agent.retry import ONCE
from hpc_agent.submission.glue_variables import GlueFacts


def own_resources(settings: QueueSettings, policy: Policy, task: Task) -> Resources:
    """The resources that a job with such a template is counted with. The template asks for them itself, and what it
    names a task may set; the queue's ``overrides`` limit those that they name.

    Raises:
        ResourceError: a value is beyond them.
    """
    limited = settings.overrides or {}
    return policy.resources({name: value for name, value in task.properties.items() if name in limited})


def glue_facts(client: Client, task: Task, queue: Queue, settings: AllSettings, naming: JobNaming) -> GlueFacts:
    """
    Raises:
        ApiError, ServerUnreachableError: the server does not have them now.
    """
    facts = GlueFacts(
        task=client.tasks.get_object(task.id, budget=ONCE),
        queue_name=queue.name,
        queue_id=queue.id,
        worker=naming.worker,
        default_image=settings.docker.default_image,
    )
    return replace(facts, project_name=client.projects.name(task.project)) if task.project else facts
