"""Which settings are secret: those whose type is ``Secret``, whatever their names."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator
from functools import cache, partial

from hpc_agent.config.names import conf_path
from hpc_agent.config.settings import AllSettings
from hpc_agent.config.types import SettingsGroup, holds_secret


def is_secret_setting(key: str) -> bool:
    """Whether ``key``, in dots, is that of a secret setting or of a part of one."""
    return bool(secret_settings().fullmatch(key))


def secret_keys(group: type[SettingsGroup], path_of: Callable[[str], str]) -> Iterator[str]:
    """Dotted keys of the secret settings of a group, to any depth; ``<name>`` is any name of a user's.

    ``path_of`` gives the key of a field of the group itself.
    """
    for name, kind in typing.get_type_hints(group, include_extras=True).items():
        if name not in group.__struct_fields__:
            continue
        path = path_of(name)
        if holds_secret(kind):
            yield path
        for inner, is_map in _groups_in(kind):
            yield from secret_keys(inner, partial(_below, f"{path}.<name>" if is_map else path))


@cache
def secret_settings() -> re.Pattern[str]:
    """The keys of all secret settings, and of what is below them."""
    keys = [
        key
        for group, kind in typing.get_type_hints(AllSettings).items()
        for key in secret_keys(kind, partial(conf_path, group))
    ]
    # A user's name may have dots in it.
    return re.compile("|".join(rf"{re.escape(key).replace('<name>', '.+')}(?:\..*)?" for key in keys), re.DOTALL)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}"


def _groups_in(kind: object, *, is_map: bool = False) -> Iterator[tuple[type[SettingsGroup], bool]]:
    """Groups that a type holds, each with whether it is one of a map's values."""
    if isinstance(kind, type) and issubclass(kind, SettingsGroup):
        yield kind, is_map
    for inner in typing.get_args(kind):
        yield from _groups_in(inner, is_map=is_map or typing.get_origin(kind) is dict)
