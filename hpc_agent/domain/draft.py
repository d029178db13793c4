"""Draft: everything about a task that is to be created, before the server has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from hpc_agent.domain.task import TaskContainer, TaskScript

TaskType = Literal[
    "training",
    "testing",
    "inference",
    "data_processing",
    "application",
    "monitor",
    "controller",
    "optimizer",
    "service",
    "qc",
    "custom",
]
"""The types that ClearML servers accept."""
TASK_TYPES: tuple[str, ...] = get_args(TaskType)

SHORTEST_NAME = 3
"""Characters of a task's, project's, queue's or model's name on ClearML's server."""


def name_from(text: str, kind: str) -> str:
    """A name for what is called ``text`` elsewhere (a job, a folder): ``job a`` for one that is too short."""
    return text if len(text.strip()) >= SHORTEST_NAME else f"{kind} {text}".strip()


class Draft(msgspec.Struct, frozen=True):
    """``project`` is a name, ``output_uri`` a URL or empty; ``runtime`` are marks that programs leave for programs."""

    name: str
    project: str
    script: TaskScript
    type: str = "training"
    container: TaskContainer = msgspec.field(default_factory=TaskContainer)
    arguments: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Hyper-parameter section ``Args``: what the script's argument parser gets."""
    properties: Mapping[str, str] = msgspec.field(default_factory=dict)
    """User properties."""
    tags: tuple[str, ...] = ()
    system_tags: tuple[str, ...] = ()
    comment: str = ""
    output_uri: str = ""
    runtime: Mapping[str, object] = msgspec.field(default_factory=dict)
