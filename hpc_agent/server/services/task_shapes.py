"""Parameters and configuration as tasks hold them: each item knows its own name and section (wire.md 8.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc_agent.server.service import Json


def keyed_hyperparams(sections: Mapping[str, Mapping[str, Json]]) -> dict[str, dict[str, Json]]:
    return {
        section: {name: hyperparam(item, section, name) for name, item in items.items()}
        for section, items in sections.items()
    }


def hyperparam(item: Json, section: str, name: str) -> Json:
    return {**item, "section": section, "name": name, "value": as_text(item.get("value"))}


def keyed_configuration(items: Mapping[str, Json]) -> dict[str, Json]:
    return {name: {**item, "name": name} for name, item in items.items()}


def as_text(value: Any) -> str:
    """Values are texts on the wire; clients that send numbers get them back as texts."""
    return "" if value is None else str(value)
