"""Lengths of time on the command line: how far back a command looks."""

from __future__ import annotations

import re
from datetime import timedelta

import click

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=3650)


def parse_period(_context: click.Context, option: click.Parameter, value: str | None) -> timedelta | None:
    """``7d``, ``12h``, ``30m``, ``2w``.

    Raises:
        InputError: it is none of them, or longer than ten years.
    """
    from hpc_agent.errors import InputError

    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,5})([mhdw])", value.strip())
    period = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < period <= _LONGEST:
        raise InputError(
            f'{option.opts[0]} is "{value}", expected a number with m, h, d or w, such as 7d or 12h, of ten years at '
            "most"
        )
    return period
