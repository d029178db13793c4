"""Other processes on all processors of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SPIN = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(100_000):
        pass
"""
"""Ends with the process that started it, however that ends."""


@contextmanager
def spinning(processes: int) -> Iterator[None]:
    """``processes`` loops without a pause, each a processor's worth."""
    children = [subprocess.Popen([sys.executable, "-c", _SPIN, str(os.getpid())]) for _ in range(processes)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()
