"""Effective values of the configuration, each with its origin, for users to read; secrets are hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from hpc_agent.config.load import Configuration
from hpc_agent.config.names import conf_path
from hpc_agent.config.secret_keys import is_secret_setting
from hpc_agent.config.settings import AllSettings
from hpc_agent.config.tree import flatten, get
from hpc_agent.config.types import SettingsGroup
from hpc_agent.redact import HIDDEN, Secret, is_secret, without_secrets

DEFAULT = "default"

_NO_SECRET = ("key", "access_key")
"""Names of a key whose other half is the secret."""
_WHOLE = ("environment", "files", "hpc.job_environment")
"""Sections that are hidden completely: what they hold is the site's, and may be anything."""
_ARGUMENT = re.compile(r"((?:^|\s)(?:-e|--env)[= ]\s*[A-Za-z_][A-Za-z0-9_]*=)(\"[^\"]*\"|'[^']*'|\S+)")
_ASSIGNMENT = re.compile(r"^((?:-e|--env=)?\s*[A-Za-z_][A-Za-z0-9_]*=).+", re.DOTALL)


class Row(msgspec.Struct, frozen=True):
    """``value`` is JSON, secrets masked; ``origin`` a file, a variable, a flag, or ``default``."""

    key: str
    value: Any
    origin: str


def rows(configuration: Configuration, *, defaults: bool = False) -> list[Row]:
    """Everything that is set, by key; with ``defaults`` also the settings that have their default."""
    found = {
        key: Row(key, masked(key, get(configuration.tree, key)), configuration.origins.get(key, ""))
        for key in flatten(configuration.tree)
    }
    for key, value in _effective(configuration.settings) if defaults else ():
        if get(configuration.tree, key) is None:
            found[key] = Row(key, masked(key, value), DEFAULT)
    return [found[key] for key in sorted(found)]


def masked(key: str, value: Any) -> Any:
    """``value`` without what may be secret in it, to any depth: by the setting's type, by its name, by its form."""
    if is_secret_setting(key) and value not in (None, ""):
        return HIDDEN
    if isinstance(value, dict):
        return {name: masked(f"{key}.{name}", inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        if "argument" in key:
            return _arguments([str(item) for item in value])
        return [masked(key, item) for item in value]
    if value is None or isinstance(value, bool) or value == "":
        return value
    if key.startswith(tuple(f"{section}." for section in _WHOLE)) or _is_secret(key.rpartition(".")[2]):
        return HIDDEN
    if not isinstance(value, str):
        return value
    if "argument" in key:
        value = _ARGUMENT.sub(rf"\g<1>{HIDDEN}", value)
    return without_secrets(value)


def _is_secret(name: str) -> bool:
    return name not in _NO_SECRET and (name == "contents" or is_secret(name))


def _arguments(words: list[str]) -> list[str]:
    """docker's arguments, one at a time; the value of ``-e NAME=value`` may be a secret."""
    shown = []
    before = ""
    for word in words:
        variable = before in ("-e", "--env") or word.startswith(("-e", "--env="))
        shown.append(_ASSIGNMENT.sub(rf"\g<1>{HIDDEN}", word) if variable else without_secrets(word))
        before = word
    return shown


def _effective(settings: AllSettings) -> Iterator[tuple[str, Any]]:
    """Effective values by key, from any origin; values that follow from others too."""
    for group in settings.__struct_fields__:
        inner: SettingsGroup = getattr(settings, group)
        for name in inner.__struct_fields__:
            yield from _leaves(conf_path(group, name), getattr(inner, name))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, SettingsGroup):
        for name in value.__struct_fields__:
            yield from _leaves(f"{path}.{name}", getattr(value, name))
    elif not isinstance(value, dict):
        yield path, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return ""
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
