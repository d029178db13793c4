"""Line charts as ClearML's ``plot`` events (docs/internals/clearml-protocol.md#event-types)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from hpc_agent.domain.ids import TaskId, WorkerId


class Line(msgspec.Struct, frozen=True):
    """One line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def plot_event(
    task: TaskId, worker: WorkerId, names: tuple[str, str], lines: Sequence[Line], axes: tuple[str, str], at_ms: int
) -> dict[str, Any]:
    """``names``: metric and variant, under which pages list the chart; ``axes``: what x and y are, with their units."""
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": line.name,
            "x": [round(x, 3) for x in line.x],
            "y": [round(y, 3) for y in line.y],
        }
        for line in lines
    ]
    layout = {
        "title": {"text": names[1]},
        "xaxis": {"title": {"text": axes[0]}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": axes[1]}, "rangemode": "tozero"},
    }
    return {
        "type": "plot",
        "task": task,
        "worker": worker,
        "metric": names[0],
        "variant": names[1],
        "iter": 0,
        "timestamp": at_ms,
        "plot_str": json.dumps({"data": data, "layout": layout}),
    }
