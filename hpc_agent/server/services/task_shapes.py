"""Checked forms of a task's sections; parameters and configuration items carry their own name and section.

See docs/internals/clearml-protocol.md#task-object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from hpc_agent.server.action import Json, RequestBody
from hpc_agent.struct_types import decodable


class _ScriptShape(RequestBody, frozen=True):
    repository: str | None = None
    branch: str | None = None
    tag: str | None = None
    version_num: str | None = None
    entry_point: str | None = None
    working_dir: str | None = None
    binary: str | None = None
    diff: str | None = None
    requirements: dict[str, str | list[str] | None] | str | None = None


class _ContainerShape(RequestBody, frozen=True):
    image: str | None = None
    arguments: str | None = None
    setup_shell_script: str | None = None


class _Artifact(RequestBody, frozen=True):
    key: str
    mode: str | None = None
    uri: str | None = None


class _ExecutionShape(RequestBody, frozen=True):
    queue: str | None = None
    artifacts: list[_Artifact] | None = None


class _Model(RequestBody, frozen=True):
    model: str | None = None
    name: str | None = None


class _Shapes(RequestBody, frozen=True):
    """The types of the fields that this server and clients read. Further fields are kept as they come."""

    script: _ScriptShape | None = None
    container: _ContainerShape | None = None
    execution: _ExecutionShape | None = None
    models: dict[str, list[_Model]] | None = None


EXECUTION: Mapping[str, Any] = {
    "artifacts": [],
    "model_desc": {},
    "model_labels": {},
    "parameters": {},
    "test_split": 0,
}
"""What clients expect of every task's ``execution``: the SDK's pipelines iterate over the artifacts of a fresh one."""
SCRIPT: Mapping[str, Any] = {"binary": "python", "repository": "", "entry_point": "", "requirements": {}}


def whole_execution(execution: Mapping[str, Any]) -> Json:
    """With every field that clients expect, the artifacts in the order of their keys."""
    whole = {**EXECUTION, **{name: value for name, value in execution.items() if value is not None}}
    return {**whole, "artifacts": sorted(whole["artifacts"], key=lambda a: (a["key"], a.get("mode") or "output"))}


_LEGACY = "legacy"
"""Type of the parameters and configuration objects that came as ``execution.parameters`` and ``.model_desc``."""
_TF_DEFINE = "TF_DEFINE"
_INPUT_MODEL = "Input Model"


def without_legacy(changes: Json, previous: Mapping[str, Any]) -> Json:
    """What a client sets as clients of API < 2.13 did, by the fields that later ones read.

    ``execution.parameters`` and ``.model_desc`` become parameters and configuration objects of the type ``legacy``, in
    place of those that ``previous``, the task that is edited, has; ``execution.model`` becomes the input model.
    """
    execution = dict(changes.get("execution") or {})
    parameters, described, model = (execution.pop(name, None) for name in ("parameters", "model_desc", "model"))
    moved: Json = {"execution": execution} if "execution" in changes else {}
    if parameters and isinstance(parameters, dict):
        sections = changes.get("hyperparams") or {
            section: _not_legacy(items) for section, items in previous.get("hyperparams", {}).items()
        }
        moved["hyperparams"] = _with_legacy(sections, parameters)
    if described and isinstance(described, dict):
        items = changes.get("configuration") or _not_legacy(previous.get("configuration", {}))
        legacy = {name: {"name": name, "value": as_text(value), "type": _LEGACY} for name, value in described.items()}
        moved["configuration"] = {**items, **legacy}
    if model and "models" not in changes:
        moved["models"] = {"input": [{"name": _INPUT_MODEL, "model": model}]}
    return {**changes, **moved}


def _not_legacy(items: Mapping[str, Json]) -> Json:
    return {name: item for name, item in items.items() if item.get("type") != _LEGACY}


def _with_legacy(sections: Mapping[str, Json], parameters: Mapping[str, Any]) -> Json:
    result = {section: dict(items) for section, items in sections.items() if items}
    for key, value in parameters.items():
        section, _, name = key.partition("/") if key.startswith(f"{_TF_DEFINE}/") else ("Args", "", key)
        result.setdefault(section, {})[name] = {
            "section": section,
            "name": name,
            "value": as_text(value),
            "type": _LEGACY,
        }
    return result


def whole_script(script: Mapping[str, Any]) -> Json:
    return {**SCRIPT, **{name: value for name, value in script.items() if value is not None}}


def check_shapes(content: Mapping[str, object]) -> None:
    """
    Raises:
        msgspec.ValidationError: a field that is read later has a wrong type; answered with 400/12.
    """
    msgspec.convert(content, decodable(_Shapes))


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
    """Text of a value; anything else that a client sends becomes JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()
