"""Types of settings: the base of their groups, and amounts with bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

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


class SettingsGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all settings groups."""


class BackendSettings(SettingsGroup, frozen=True, kw_only=True):
    """Base of the sections of scheduler backends, ``hpc.<backend>``."""

    scratch_variables: ClassVar[tuple[str, ...]] = ()
    """Variables in which the backend's jobs find a folder of their node for themselves."""
