"""The packages import as ``scripts/layers.py`` allows, and each interface to the outside has its owner."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from layers import BASICS, IMPORTED_BY, LAYERS, MAY_CALL, OWNERS, PROCESS_CALLS, RESTRICTED, SETTINGS_OF_BACKENDS
from syntax_trees import syntax_nodes

from hpc_agent.schedulers.registry import BACKENDS

PACKAGE = Path(__file__).parents[2] / "hpc_agent"


def layer(name: str) -> int | None:
    return next((number for number, layer in enumerate(LAYERS) if name in layer.packages), None)


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if top not in ("__init__", "__main__"):
            yield top, path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in syntax_nodes(path):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            if node.module == "hpc_agent":
                yield from ((node.lineno, f"hpc_agent.{alias.name}") for alias in node.names)


def process_calls(path: Path) -> Iterator[tuple[int, str]]:
    """Functions of ``os`` that start or replace a process, called, passed on or imported by name."""
    for node in syntax_nodes(path):
        found: list[tuple[int, str]] = []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            found = [(node.lineno, node.attr)]
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            found = [(node.lineno, alias.name) for alias in node.names]
        yield from ((line, f"os.{name}") for line, name in found if name.startswith(PROCESS_CALLS))


def is_allowed(importer: str, file: str, imported: str) -> bool:
    own, other = layer(importer), layer(imported)
    assert own is not None
    if other is None or importer == imported:
        return True
    if imported in IMPORTED_BY and file not in IMPORTED_BY[imported]:
        return False
    if own == other:
        return LAYERS[own].mutual or (importer, imported) in LAYERS[own].within
    if importer in RESTRICTED:
        return other < BASICS or imported in RESTRICTED[importer]
    return other < own


def test_every_package_has_one_layer() -> None:
    listed = [name for layer in LAYERS for name in layer.packages]
    assert sorted(listed) == sorted({top for top, _ in modules()})


def test_packages_import_only_what_their_layer_allows() -> None:
    wrong = []
    for top, path in modules():
        file = path.relative_to(PACKAGE).as_posix()
        for line, name in imports(path):
            parts = name.split(".")
            if parts[0] != "hpc_agent" or len(parts) < 2:
                continue
            if not (is_allowed(top, file, parts[1]) or (top == "config" and name == SETTINGS_OF_BACKENDS)):
                wrong.append(f"{file}:{line} imports {name}")
    assert wrong == []


def test_settings_of_a_backend_import_what_the_configuration_may() -> None:
    modules = ["registry.py", *(f"{name}/settings.py" for name in BACKENDS)]
    wrong = [
        f"{module} imports {name}"
        for module in modules
        for _, name in imports(PACKAGE / "schedulers" / module)
        if name.startswith("hpc_agent.") and (layer(name.split(".")[1]) or 0) >= BASICS
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("file", "imported"),
    [
        ("server/app.py", "api"),
        ("server/app.py", "runs"),
        ("cli/daemon.py", "server"),
        ("daemon/loop.py", "server"),
        ("wire/event.py", "api"),
        ("executor/claim.py", "daemon"),
    ],
)
def test_import_across_a_boundary_is_refused(file: str, imported: str) -> None:
    assert not is_allowed(file.split("/")[0], file, imported)


def test_each_outside_interface_has_its_owner() -> None:
    owners = {module: owner for owner in OWNERS for module in owner.modules}
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for top, path in modules()
        for line, name in imports(path)
        if (owner := owners.get(name.split(".")[0])) and top not in owner.packages
    ]
    assert wrong == []


def test_only_process_starts_or_replaces_processes() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{line} {name}": top
        for top, path in modules()
        for line, name in process_calls(path)
    }
    assert [place for place, top in found.items() if top not in MAY_CALL] == []
    assert {place.split()[1] for place in found} == {"os.fork", "os.execvp"}  # the search does find them


def test_only_the_command_line_prints() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for top, path in modules()
        if top != "cli"
        for node in syntax_nodes(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert wrong == []
