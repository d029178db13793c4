"""A mirror seen through a git directory of our own, so that no configuration in the shared cache is obeyed.

A mirror's ``config`` and ``hooks`` can name programs. Who may write to a group's cache could so run code as everybody
who fetches. The objects and references are the mirror's, through links, as git's own ``git-new-workdir`` makes them.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SHARED = ("objects", "refs", "packed-refs", "lfs")


@contextmanager
def private_view(mirror: Path) -> Iterator[Path]:
    """Enter with a git directory for ``mirror``, a bare repository; on leaving it is gone.

    Raises:
        OSError: it cannot be made.
    """
    view = Path(tempfile.mkdtemp(prefix="hpc-agent-git-"))
    try:
        target = mirror.resolve()
        for name in _SHARED:
            # git follows the link of packed-refs when it writes a new one.
            (view / name).symlink_to(target / name)
        (view / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
        (view / "config").write_text(
            f"[core]\n\tbare = true\n\trepositoryformatversion = 0\n{_sharing(target)}", encoding="utf-8"
        )
        yield view
    finally:
        shutil.rmtree(view, ignore_errors=True)


def _sharing(mirror: Path) -> str:
    """What gives new files the access that the mirror grants, whatever anybody's umask."""
    mode = stat.S_IMODE(mirror.stat().st_mode) & 0o666 | 0o600
    return f"\tsharedRepository = 0{mode:o}\n" if mode & 0o077 else ""
