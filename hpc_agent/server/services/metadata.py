"""Metadata of models and queues: ``{key: {key, type, value}}``."""

from __future__ import annotations

from hpc_agent.server.action import Json


def metadata_by_key(metadata: list[Json] | Json) -> Json:
    """Clients send a list or an object and read an object."""
    if isinstance(metadata, dict):
        return metadata
    return {str(item["key"]): item for item in metadata if "key" in item}
