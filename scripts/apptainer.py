"""A real Apptainer of the tests' own: Debian's, unpacked into a folder. Neither root nor a service is needed."""

from __future__ import annotations

import os
from pathlib import Path

from debian_packages import PackagesError, cache_dir, locked, unpack, use_own_libraries

SUITE = "sid"
"""The only Debian release that has it."""
_STARTER = "usr/lib/*/apptainer/bin/starter"


def apptainer() -> Path:
    """Its program, fetched at the first call.

    Raises:
        PackagesError: the packages could not be had.
    """
    folder = cache_dir() / "apptainer"
    files = folder / "files"
    program = files / "usr/bin/apptainer"
    ready = folder / "ready"
    with locked(folder):
        if not ready.exists():
            unpack(SUITE, ("apptainer", "patchelf"), folder)
            starter = next(files.glob(_STARTER), None)
            if starter is None:
                raise PackagesError(f"Debian {SUITE}'s apptainer has no {_STARTER} now")
            use_own_libraries(files, [program, starter, files / "usr/bin/mksquashfs", files / "usr/bin/unsquashfs"])
            _relocate(files, starter)
            ready.touch()
    return program


def _relocate(files: Path, starter: Path) -> None:
    """Each of its programs takes its configuration from next to its own folder: ``../etc`` of ``bin``, and for the
    starter the ``etc`` three folders up."""
    for prefix in (files / "usr", starter.parents[3]):
        for name in ("etc", "var"):
            if not (prefix / name).exists():
                (prefix / name).symlink_to(os.path.relpath(files / name, prefix))
