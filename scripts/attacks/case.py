"""One hostile input: what is tried, and a function that tries it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A hostile input at one of the doors."""

    name: str
    """What is tried, unique within its door."""
    attempt: Callable[[Path], str]
    """Tries it in an empty folder; returns what got in, empty if nothing did. An exception is a broken case."""
