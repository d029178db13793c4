"""Untyped values → settings. A wrong value names file, key and what was expected, an unknown key its neighbour."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import msgspec

from hpc_agent.config.types import SettingsGroup, holds_secret, parse_truth
from hpc_agent.errors import ConfigError, ResourceError
from hpc_agent.redact import HIDDEN, Secret, is_secret
from hpc_agent.struct_types import decodable

G = TypeVar("G", bound=SettingsGroup)

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "a section { … }",
    "null": "nothing",
}


def build_group(cls: type[G], values: object, path_of: Callable[[str], str], origins: Mapping[str, str]) -> G:
    """A settings group from plain values. ``path_of`` gives the dotted key of a field, for messages.

    Raises:
        ConfigError: see the module.
    """
    values = check_section(values, path_of("").rstrip("."), origins)
    fields = {field.name: field for field in msgspec.structs.fields(cls)}
    for name in values:
        if name not in fields:
            raise _unknown_key(str(name), list(fields), path_of(str(name)), origins)
    hints = typing.get_type_hints(cls, include_extras=True)
    converted = {
        name: _convert(hints[name], value, path_of(name), origins)
        for name, value in values.items()
        if value is not None
    }
    try:
        return cls(**converted)
    except ResourceError as error:
        path = path_of("").rstrip(".")
        raise ConfigError(f"{origin(path, origins)}: {path}: {error}") from error


def check_section(value: object, key: str, origins: Mapping[str, str]) -> dict[Any, Any]:
    """
    Raises:
        ConfigError: ``value`` is not a section.
    """
    if isinstance(value, dict):
        return value
    raise ConfigError(f"{origin(key, origins)}: {key} is {_shown(key, value)}, expected a section {{ … }}")


def _convert(kind: Any, value: object, path: str, origins: Mapping[str, str]) -> Any:
    def inner(field: str) -> str:
        return f"{path}.{field}"

    plain = typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind
    if isinstance(plain, type) and issubclass(plain, SettingsGroup):
        return build_group(plain, value, inner, origins)
    mapped = _mapped_settings(plain)
    if mapped is not None and isinstance(value, dict):
        _check_keys(kind, value, inner, origins)
        return {str(key): _convert(mapped, item, f"{path}.{key}", origins) for key, item in value.items()}
    if value == "" and typing.get_args(plain) == (Path, NoneType):
        return None
    try:
        return msgspec.convert(_as_written(plain, value), decodable(kind), strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        choices = typing.get_args(plain) if typing.get_origin(plain) is typing.Literal else ()
        expected = f"expected one of: {', '.join(map(str, choices))}" if choices else _expected(str(error))
        if expected == "expected text" and isinstance(value, (bool, float)):
            expected += " in quotes"
        raise ConfigError(f"{origin(path, origins)}: {path} is {_shown(path, value, kind)}, {expected}") from error


def _shown(path: str, value: object, kind: object = None) -> str:
    if holds_secret(kind) or any(map(is_secret, path.split("."))):
        return HIDDEN
    return "a section" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)


def _check_keys(kind: Any, value: Mapping[Any, Any], path_of: Callable[[str], str], origins: Mapping[str, str]) -> None:
    """A map of which only some keys mean something names them in its annotation."""
    extra = getattr(typing.get_args(kind)[-1], "extra", None) or {}
    for name in value:
        if name not in extra.get("keys", (name,)):
            raise _unknown_key(str(name), list(extra["keys"]), path_of(str(name)), origins)


def _as_written(kind: Any, value: Any) -> Any:
    """``value`` with what HOCON took for a number or a truth as the text that it was, and the other way round.

    A float is left alone: 3.10 has become 3.1.
    """
    kinds = typing.get_args(kind) or (kind,)
    if bool in kinds and isinstance(value, str):
        truth = parse_truth(value)
        return value if truth is None else truth
    if isinstance(value, list) and any(typing.get_origin(each) is tuple for each in (kind, *kinds)):
        return [_as_written(str, item) for item in value]
    is_text = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_text and {str, Secret, Path} & set(kinds) and not {int, float, bool} & set(kinds) else value


def _mapped_settings(kind: Any) -> type[SettingsGroup] | None:
    """``X`` for ``dict[str, X]`` and ``dict[str, X] | None`` where X is a settings group."""
    for candidate in (kind, *typing.get_args(kind)):
        arguments = typing.get_args(candidate)
        if typing.get_origin(candidate) is dict and isinstance(arguments[1], type):
            return arguments[1] if issubclass(arguments[1], SettingsGroup) else None
    return None


def _decode(kind: type, value: object) -> object:
    if kind in (Path, Secret) and isinstance(value, str):
        if kind is Path and not value:
            raise ValueError("Expected the path of a folder")
        return kind(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


def _expected(message: str) -> str:
    """msgspec's words in ours: "Expected `int`, got `str`" → "expected a whole number"."""
    message = message.split(" - at `")[0]
    match = re.match(r"Expected (?P<what>.+?)(?:, got .+)?$", message)
    if not match:
        return message[0].lower() + message[1:]
    return "expected " + re.sub(r"`([^`]+)`", lambda kind: _in_words(kind[1]), match["what"])


def _in_words(kind: str) -> str:
    return " or ".join(_WORDS.get(part, part) for part in kind.split(" | ") if part != "null")


def _unknown_key(name: str, known: list[str], path: str, origins: Mapping[str, str]) -> ConfigError:
    import difflib  # only after a wrong name

    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    section = path.rpartition(".")[0]
    advice = f'did you mean "{near[0]}"?' if near else f"{section} knows: {', '.join(sorted(known))}"
    return ConfigError(f"{origin(path, origins)}: unknown key {path}; {advice}")


def origin(path: str, origins: Mapping[str, str]) -> str:
    """Who set this key, or the first key below it."""
    below = (origins[key] for key in origins if key == path or key.startswith(path + "."))
    return next(below, "the configuration")
