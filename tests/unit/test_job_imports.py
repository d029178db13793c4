"""What a job imports before the user's process starts: each of its modules delays that process."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hpc_agent.cli.execute

_LOOK = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
own = [module for name, module in sys.modules.items() if name.startswith("hpc_agent")]
classes = {value for module in own for value in vars(module).values() if isinstance(value, type)}
dataclasses = sorted(f"{c.__module__}.{c.__qualname__}" for c in classes if "__dataclass_fields__" in vars(c))
print(json.dumps({"modules": sorted(sys.modules), "dataclasses": dataclasses}))
"""
_NOT_OF_A_PLAIN_TASK = {"hpc_agent.executor.node_agent"}


def imported_by_execute() -> list[str]:
    """Modules that ``hpc-agent execute`` names, in its functions too."""
    tree = ast.parse(Path(hpc_agent.cli.execute.__file__).read_text(encoding="utf-8"))
    named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return sorted(named - _NOT_OF_A_PLAIN_TASK)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    argv = [sys.executable, "-c", _LOOK, json.dumps(imported_by_execute())]
    answer = subprocess.run(argv, check=True, capture_output=True, text=True)
    loaded: dict[str, Any] = json.loads(answer.stdout)
    assert "hpc_agent.executor.task_run" in loaded["modules"]
    return loaded


def test_values_are_structs(found: dict[str, Any]) -> None:
    """A dataclass takes 0.5 ms to import (docs/internals/performance.md#command-start-up)."""
    assert found["dataclasses"] == []


@pytest.mark.parametrize(
    "module",
    [
        "psutil",
        "tarfile",
        "hpc_agent.domain.failure_table",
        "hpc_agent.executor.many_nodes",
        "hpc_agent.image_resolver",
        "hpc_agent.schedulers.slurm.driver",
    ],
)
def test_what_few_tasks_need_is_not_imported(found: dict[str, Any], module: str) -> None:
    assert module not in found["modules"]


@pytest.mark.parametrize("module", ["requests", "hpc_agent.sources.layout", "hpc_agent.schedulers.base"])
def test_the_unpacking_begins_without_the_rest(module: str) -> None:
    code = f"import sys, hpc_agent.executor.prefetch; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
