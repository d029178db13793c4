"""Order of texts many of which are numbers: parameters of tasks, such as ``0.001``, ``1e-4``, ``16``."""

from __future__ import annotations

import math


def compare_numerically(one: str, other: str) -> int:
    """Negative, 0 or positive. Numbers by value, before all other texts; those without regard to case."""
    first, second = _key(one), _key(other)
    return (first > second) - (first < second)


def _key(text: str) -> tuple[int, float, str]:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return (1, 0.0, text.casefold()) if math.isnan(number) else (0, number, text)
