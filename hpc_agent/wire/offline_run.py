"""Offline run of ClearML's SDK (the folder it leaves) → fields and events of a task on a server.

``task.json`` is a task object without a server's own fields. ``log.jsonl`` and ``metrics.jsonl`` hold one JSON list of
events a line, in the form of ``events.add_batch``. ``data/`` holds the files that would have been uploaded, under the
paths that they would have there; the run's own local id is part of the paths (measured with SDK 2.1.12).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hpc_agent.domain.ids import TaskId

TASK_FILE = "task.json"
EVENT_FILES = ("log.jsonl", "metrics.jsonl")
DATA = "data"

_COPIED = ("name", "type", "tags", "comment", "script", "execution", "hyperparams", "configuration", "container")
Moved = Callable[[str], str]
"""URL of a file in the offline run → its URL on the server; any other text stays as it is."""


def new_task_fields(data: Mapping[str, Any], project_id: str) -> dict[str, Any]:
    """``tasks.create`` of the run; its artifacts are added later, when they have URLs."""
    fields = {name: data[name] for name in _COPIED if data.get(name)}
    fields.setdefault("name", "offline run")
    fields.setdefault("type", "training")
    if execution := fields.get("execution"):
        fields["execution"] = {name: value for name, value in execution.items() if name != "artifacts"}
    if models := data.get("models"):
        fields["models"] = {"input": models.get("input") or [], "output": []}
    if destination := (data.get("output") or {}).get("destination"):
        fields["output_dest"] = destination
    return {**fields, "project": project_id, "system_tags": ["development"]}


def artifact_fields(data: Mapping[str, Any], moved: Moved) -> dict[str, Any]:
    """``tasks.edit`` that adds the run's artifacts, or nothing when it has none."""
    execution = data.get("execution") or {}
    found = [
        {**artifact, "uri": moved(str(artifact.get("uri") or ""))} for artifact in execution.get("artifacts") or ()
    ]
    return {"execution": {**execution, "artifacts": found}} if found else {}


def moved_event(event: Mapping[str, Any], task: TaskId, key: Moved, moved: Moved) -> dict[str, Any]:
    """The event as one of ``task``. ``key`` renames the storage path that debug samples carry next to their URL."""
    result = {name: value for name, value in event.items() if name != "method"}
    result["task"] = task
    if result.get("key") and result.get("url"):
        result |= {"key": key(str(result["key"])), "url": moved(str(result["url"]))}
    elif "images" in str(result.get("plot_str") or ""):
        result["plot_str"] = _moved_plot(str(result["plot_str"]), moved)
    return result


def _moved_plot(plot_str: str, moved: Moved) -> str:
    """Images inside of a plot are files of the run too."""
    try:
        plot = json.loads(plot_str)
        for image in plot.get("layout", {}).get("images") or ():
            image["source"] = moved(str(image.get("source") or ""))
    except (ValueError, AttributeError, TypeError):
        return plot_str
    return json.dumps(plot)
