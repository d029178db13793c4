"""Resources and ranks that ``hpc-task`` writes into a task's user properties, checked as its queue's daemon will."""

from __future__ import annotations

from collections.abc import Mapping

from hpc_agent.api.client import Client
from hpc_agent.config.settings import HpcSettings
from hpc_agent.domain.launch_plan import LAUNCH_PROPERTIES, LaunchDefaults, launch_plan
from hpc_agent.domain.resources import DEFAULT_OVERRIDES, PROPERTY_FIELDS, Override, Policy
from hpc_agent.drafts.draft_request import DraftRequest, WrongUsageError
from hpc_agent.errors import ResourceError

_ANY_QUEUE = Policy("", overrides={name: Override() for name in PROPERTY_FIELDS})


def check_values(properties: Mapping[str, str]) -> None:
    """Check what no queue allows: texts that are not numbers, times or names, and amounts that mean "no limit".

    Raises:
        WrongUsageError: with the daemon's sentence.
    """
    _check(_ANY_QUEUE, properties)


def check_for_queue(client: Client, hpc: HpcSettings, request: DraftRequest) -> tuple[str, ...]:
    """Check the resources against the queue's ``overrides`` where this machine's configuration has them; returns
    warnings. Those of a ``--base-task-id`` count too: its copy keeps them.

    Raises:
        WrongUsageError: with the daemon's sentence.
        InputError: the queue or the base task does not exist.
    """
    if not (request.resources and request.queue):
        return ()
    queue = _name_on_server(client, request.queue)
    if queue in hpc.queues:
        _check(hpc.queue(queue).policy(queue, hpc.resources), {**_inherited(client, request), **request.resources})
        return ()
    doubtful = [name for name in request.resources if name not in (*DEFAULT_OVERRIDES, *LAUNCH_PROPERTIES)]
    if not doubtful:
        return ()
    return (
        f'hpc.queues has no block for "{queue}" on this machine: the daemon that serves it decides whether a task may '
        f"set {', '.join(doubtful)}",
    )


def _check(policy: Policy, properties: Mapping[str, str]) -> None:
    try:
        resources = policy.resources(properties)
        launch_plan(properties, LaunchDefaults(), nodes=resources.nodes, gpus=resources.gpus)
    except ResourceError as error:
        raise WrongUsageError(str(error)) from error


def _name_on_server(client: Client, id_or_name: str) -> str:
    """The name that settings are kept under; a person may have given its id, or other capitals."""
    found = client.queues.get_many([client.queues.resolve(id_or_name)])
    return found[0].name if found else id_or_name


def _inherited(client: Client, request: DraftRequest) -> Mapping[str, str]:
    if not request.base_task_id:
        return {}
    return client.tasks.get(client.tasks.resolve(request.base_task_id)).properties
