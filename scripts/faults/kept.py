"""Folder of a run with faults: one that is left, and named, unless all went well."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FAILED = 1
EVIDENCE = "evidence.json"
"""What a run that came to its end leaves for its judge."""


def default_parent() -> Path:
    """Folder of the evidence of all such runs of this user."""
    return Path(tempfile.gettempdir()) / f"hpc-agent-evidence-{os.getuid()}"


def run_in_folder(program: str, name: str, keep: Path | None, run: Callable[[Path], int]) -> int:
    """``run`` in ``keep``, or in a new folder that is removed unless it fails, with 1 or an exception.

    Returns its exit code.
    """
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        folder = keep.absolute()
    else:
        default_parent().mkdir(mode=0o700, parents=True, exist_ok=True)
        prefix = f"{program}-{time.strftime('%Y%m%d-%H%M%S')}-{name}-"
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=default_parent()))
    code = FAILED
    try:
        code = run(folder)
    finally:
        if code == FAILED:
            again = f"; scripts/{program} --replay {folder} judges it again" if any(folder.rglob(EVIDENCE)) else ""
            print(f"The evidence is left in {folder}{again}", flush=True)
        elif not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return code
