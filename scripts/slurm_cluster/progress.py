"""Progress of a start or a stop, for the user who waits."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    print(f"{what} … ", end="", flush=True, file=sys.stderr)
    begin = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", file=sys.stderr)
        raise
    print(f"{time.monotonic() - begin:.1f} s", file=sys.stderr)


def note(message: str) -> None:
    """A line of its own."""
    print(message, file=sys.stderr)
