"""A value of each resource that a site can set, as the settings take it."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping

from hpc_agent.config.resource_settings import ResourceSettings


def _types(kind: object) -> Iterator[object]:
    yield kind
    for inner in typing.get_args(kind):
        yield from _types(inner)


def _value(name: str, kind: object) -> object:
    return 3 if {int, float} & {each for each in _types(kind) if isinstance(each, type)} else f"the-{name}"


RESOURCE_VALUES: Mapping[str, object] = {
    name: _value(name, kind)
    for name, kind in typing.get_type_hints(ResourceSettings, include_extras=True).items()
    if name in ResourceSettings.__struct_fields__
}
"""By field of ``ResourceSettings``: 3 of an amount, a name that says what it is. A new field is here by itself."""
