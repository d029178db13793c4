"""Jobs of a chaos run as squeue lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One of squeue's jobs that belong to a task."""

    task: str
    job: str
    state: str
    node: str
    """Several with commas."""
    partition: str
    element: str = ""
    """``12_3`` for an element of a job array: the id in ``job`` may be that of the whole array too."""
    in_pilot: bool = False
    """The job is a pilot, which has other tasks too."""

    @property
    def nodes(self) -> Sequence[str]:
        return self.node.split(",")

    @property
    def target(self) -> str:
        """For commands that are about this job alone."""
        return self.element or self.job

    @property
    def array(self) -> str:
        return self.element.partition("_")[0]


def task_of(name: str) -> str:
    """The task of a job's name."""
    return name.removeprefix("clearml_task_").partition("_")[0]


def expanded(nodes: str) -> str:
    """The nodes of a list as squeue prints it: ``n[1-2]`` are n1,n2."""
    spans = re.findall(r"(\d+)(?:-(\d+))?", nodes)
    return ",".join(f"n{number}" for first, last in spans for number in range(int(first), int(last or first) + 1))
