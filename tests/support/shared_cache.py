"""Folder of things that take long to make, which all runs of the tests on a machine share: ~/.cache/hpc-agent-tests.

Workers of one run use it at the same time, and runs of two checkouts.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpc-agent-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of this name, which ``make`` fills if it is not there yet; others wait meanwhile."""
    target = cache() / name
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            making = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache()))
            make(making)
            making.chmod(0o755)
            making.rename(target)
    return target


def write_whole(path: Path, text: str) -> None:
    """Write a file that others read meanwhile."""
    handle, draft = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(draft).rename(path)
