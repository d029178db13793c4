"""Names of tasks, projects, queues and models, as ClearML's server takes them."""

from __future__ import annotations

from hpc_agent.server.api_fault import ApiFault
from hpc_agent.wire.error_kinds import DATA_VALIDATION_ERROR

SHORTEST = 3
"""Characters of a name; of a project inside another one with the names above it."""


def valid_name(name: str) -> str:
    """The name without blanks around it.

    Raises:
        ApiFault: 400/800, it is too short.
    """
    stripped = name.strip()
    if len(stripped) < SHORTEST:
        raise ApiFault(DATA_VALIDATION_ERROR, f"a name has at least {SHORTEST} characters", name=name)
    return stripped
