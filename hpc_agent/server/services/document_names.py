"""Names of tasks, projects, queues and models, as ClearML's server takes them."""

from __future__ import annotations

from hpc_agent.domain.draft import SHORTEST_NAME
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.wire.error_kinds import DATA_VALIDATION_ERROR


def valid_name(name: str) -> str:
    """The name without blanks around it. A project inside another one is named with those above it.

    Raises:
        ApiFault: 400/800, it is too short.
    """
    stripped = name.strip()
    if len(stripped) < SHORTEST_NAME:
        raise ApiFault(DATA_VALIDATION_ERROR, f"a name has at least {SHORTEST_NAME} characters", name=name)
    return stripped
