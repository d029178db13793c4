"""Nested dictionaries with dotted keys, as HOCON has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Tree = dict[str, Any]


def merge(into: Tree, tree: Tree) -> None:
    """Lay ``tree`` over ``into``, section by section."""
    for key, value in tree.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = _copy(value)


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def get(tree: Tree, path: str) -> Any:
    """The value at a dotted path, or None."""
    node: Any = tree
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def put(tree: Tree, path: str, value: object) -> None:
    """Set the value at a dotted path, making sections on the way."""
    *sections, last = path.split(".")
    for part in sections:
        inner = tree.get(part)
        if not isinstance(inner, dict):
            inner = tree[part] = {}
        tree = inner
    tree[last] = value


def remove(tree: Tree, path: str) -> Any:
    """Take the value at a dotted path out; returns it, or None where there is none."""
    section, _, last = path.rpartition(".")
    node = get(tree, section) if section else tree
    return node.pop(last, None) if isinstance(node, dict) else None


def flatten(tree: Tree, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all leaves."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
