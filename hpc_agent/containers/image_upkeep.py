"""Maintenance of the shared folder of images: those that were fetched for tasks, listed and removed.

What a site put there itself has no record of uses, and is neither shown nor touched.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from hpc_agent import file_records
from hpc_agent.containers.images import remove_image, use_records

_ABANDONED = timedelta(days=1)
"""What a killed fetch left behind: fetching and converting take eight hours at most."""
_PREFIX = len(".01234567.")


class ImageEntry(msgspec.Struct, frozen=True):
    """An image in the shared folder. ``name`` is its file's; ``size`` in bytes; ``uses`` is about right."""

    name: str
    size: int
    uses: int
    last_used: datetime


def entries(folder: Path) -> Iterator[ImageEntry]:
    """Every image that was fetched into ``folder``, in no order."""
    records = use_records(folder)
    for name in records.names():
        uses = records.of(name)
        with contextlib.suppress(OSError):
            if uses:
                yield ImageEntry(name, _size(folder / name), uses.count, uses.last)


def remove(folder: Path, names: Sequence[str]) -> list[str]:
    """Remove images from ``folder``; returns those that could not be removed (another user's)."""
    records = use_records(folder)
    failed = []
    for name in names:
        try:
            # By a rename first: a job that starts now must not find a part of it.
            removed = folder / f".{secrets.token_hex(4)}.{name}"
            (folder / name).rename(removed)
        except OSError:
            failed.append(name)
            continue
        remove_image(removed)
        (folder / f"{name.removesuffix('.tar')}.json").unlink(missing_ok=True)
        records.forget(name)
    return failed


def remove_leftovers(folder: Path, now: datetime, held: Collection[str]) -> None:
    """Remove what killed processes had not fetched to the end, or not removed, and replaced images that no job runs
    in any more: ``held`` are the names of those that are in use."""
    for path in folder.glob(".????????.*"):
        with contextlib.suppress(OSError):
            old = now.timestamp() - path.lstat().st_mtime > _ABANDONED.total_seconds()
            if old and path.name[_PREFIX:] not in held:
                remove_image(path)
    records = use_records(folder)
    for name in records.names():
        # Removed by hand: a site may put an image of its own in its place.
        if not file_records.exists_uncached(folder / name):
            records.forget(name)


def _size(path: Path) -> int:
    """
    Raises:
        OSError: it is not there.
    """
    size = path.lstat().st_size
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                size += Path(folder, name).lstat().st_size
    return size
