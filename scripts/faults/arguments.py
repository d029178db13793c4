"""Arguments that both command lines take."""

from __future__ import annotations


def positive(text: str) -> int:
    """For argparse, which names the flag and this type's name."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
