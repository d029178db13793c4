"""The layers of the design hold: who imports whom, and who alone may import what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "hpc_agent"

LAYERS = [
    {"errors", "domain"},
    {"clock", "cancellation", "retry", "process", "process_id", "child_processes", "exec_launcher", "file_records"}
    | {"file_lock", "lease", "heartbeat", "access", "request_counts"}
    | {"redact", "secret_values", "logs", "config", "git_credentials", "utf8_mode"},
    {"wire", "api", "schedulers", "submission", "containers", "envs", "sources", "telemetry", "runs"},
    {"image_resolver"},
    {"staging"},
    {"daemon", "executor", "server", "drafts", "bundles"},
    {"tracking"},
    {"cli"},
]
"""Lowest first. A layer imports lower ones; ``image_resolver`` is where images and environments meet, ``staging`` where
sources join them; ``tracking`` looks at repositories as drafts do, and watches in a job as the executor does."""

WITHIN = {("api", "wire"), ("telemetry", "api"), ("telemetry", "wire")}
"""Imports allowed between packages of one layer."""

BASICS = {0, 1}
"""Layers whose packages may import each other."""

SOLE_OWNERS = {
    "subprocess": {"process"},
    "requests": {"api"},
    "sqlite3": {"server"},
    "time": {"clock"},
    "jinja2": {"submission", "server"},
}


def layer(name: str) -> int | None:
    return next((number for number, names in enumerate(LAYERS) if name in names), None)


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if top not in ("__init__", "__main__"):
            yield top, path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            if node.module == "hpc_agent":
                yield from ((node.lineno, f"hpc_agent.{alias.name}") for alias in node.names)


def test_every_package_has_a_layer() -> None:
    assert {top for top, _ in modules() if layer(top) is None} == set()


def test_a_layer_imports_lower_ones_only() -> None:
    wrong = []
    for top, path in modules():
        own = layer(top)
        assert own is not None
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] != "hpc_agent" or len(parts) < 2 or parts[1] == top:
                continue
            other = layer(parts[1])
            allowed = other is None or other < own or (top, parts[1]) in WITHIN or (own == other and own in BASICS)
            if not allowed:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    assert wrong == []


def test_each_outside_world_has_one_door() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for top, path in modules()
        for line, name in imports(path)
        if name.split(".")[0] in SOLE_OWNERS and top not in SOLE_OWNERS[name.split(".")[0]]
    ]
    assert wrong == []


def test_only_the_command_line_prints() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for top, path in modules()
        if top != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert wrong == []
