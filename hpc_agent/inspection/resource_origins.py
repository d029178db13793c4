"""Origins of what a job asks for: the site, its queue, the task, or the daemon's flags. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from hpc_agent.config.resource_settings import QueueSettings, ResourceSettings
from hpc_agent.domain.resources import PROPERTY_FIELDS, Resources, format_time_limit

_FIELDS: Mapping[str, str] = {**PROPERTY_FIELDS, "exclude": "exclude"}
"""Name of a request → the field of ``Resources``."""


class ResourceOrigin(msgspec.Struct, frozen=True):
    """One request of a job. ``value``: empty where the job leaves it to the scheduler."""

    name: str
    value: str
    origin: str


def resource_origins(
    resources: Resources,
    properties: Mapping[str, str],
    queue: QueueSettings,
    site: ResourceSettings,
    queue_name: str,
    *,
    changed: frozenset[str] = frozenset(),
    avoided: bool = False,
) -> Iterator[ResourceOrigin]:
    """``changed``: names of requests that the daemon's flags set; ``avoided``: nodes were added to ``exclude``."""
    for name, field in _FIELDS.items():
        value = _shown(name, getattr(resources, field))
        origin = "the scheduler's default"
        if getattr(site, name) is not None:
            origin = f"the site: hpc.resources.{name}"
        if getattr(queue.resources, name) is not None:
            origin = f'the queue: hpc.queues."{queue_name}".resources.{name}'
        if name in changed:
            origin = "the daemon's flags"
        if name in PROPERTY_FIELDS and properties.get(name, "").strip():
            origin = f"the task: user property {name}"
        if name == "exclude" and avoided:
            own = "" if origin.startswith("the scheduler") else f"{origin}, and "
            origin = f"{own}nodes on which jobs failed at their start"
        if name == "num_nodes" and origin.startswith("the scheduler"):
            origin = "hpc-agent's default"
        yield ResourceOrigin(name, value, origin)


def _shown(name: str, value: object) -> str:
    if value in (None, "") or (name == "num_gpus" and value == 0):
        return "0" if name == "num_gpus" else ""
    if name == "memory_gb":
        assert isinstance(value, int)
        return f"{value / 1024:g}"
    if name == "time_limit":
        assert isinstance(value, int)
        return format_time_limit(value) if value else "none"
    return str(value)
