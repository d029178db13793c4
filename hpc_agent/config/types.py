"""Types of settings: the base of their groups, and amounts with bounds."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from hpc_agent.errors import ConfigError
from hpc_agent.redact import Secret

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Interval = Annotated[float, Meta(ge=0.1)]
"""Seconds that something waits each time: with 0 a loop would not rest, a command not have begun."""


_TRUTHS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def parse_truth(text: str) -> bool | None:
    """Boolean that people write as ``true``, ``yes``, ``on`` or ``1``, and their opposites; None for any other text."""
    return _TRUTHS.get(text.strip().lower())


def holds_secret(kind: object) -> bool:
    """Whether values of a setting's type are secret, or hold one that is."""
    return kind is Secret or any(map(holds_secret, typing.get_args(kind)))


class SettingsGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all settings groups. A ``~`` at the beginning of a path is the home folder from the start."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            expanded = expand_home(value)
            if expanded is not value:
                msgspec.structs.force_setattr(self, name, expanded)


class BackendSettings(SettingsGroup, frozen=True, kw_only=True):
    """Base of the sections of scheduler backends, ``hpc.<backend>``."""

    scratch_variables: ClassVar[tuple[str, ...]] = ()
    """Variables in which the backend's jobs find a folder of their node for themselves."""


def expand_home(value: object) -> object:
    """A path, or paths in a tuple, with the home folder for ``~``; anything else as it is.

    Raises:
        ConfigError: ``~name`` of a user that does not exist.
    """
    if isinstance(value, tuple) and any(isinstance(item, Path) for item in value):
        return tuple(expand_home(item) for item in value)
    first = value.parts[0] if isinstance(value, Path) and value.parts else ""
    if not first.startswith("~"):
        return value
    # Not Path.expanduser, which raises where the user has no home folder: defaults are made when this is imported.
    expanded = os.path.expanduser(str(value))  # noqa: PTH111
    if expanded.startswith("~") and first != "~":
        raise ConfigError(f"the path {value} in the configuration names the home folder of a user that does not exist")
    return Path(expanded)
