"""Records of many jobs, written together: all of them wait once for the disk, where each would have waited for itself.

A file server, as a local journal, takes many waiting writes in about the time of one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from hpc_agent.cancellation import in_background
from hpc_agent.file_records import Durability, draft_of, encoded_record, fsync_directory, link_first, write_draft

T = TypeVar("T")

_AT_ONCE = 16
"""Files that wait for the disk side by side."""


class FileWrite(msgspec.Struct, frozen=True):
    """A file that is to be written, as ``file_records.write_atomic`` does."""

    path: Path
    data: bytes
    mode: int = 0o644
    is_first: bool = False
    """As ``file_records.write_first``: only where there is none."""

    @classmethod
    def of_record(cls, path: Path, record: object, *, is_first: bool = False) -> FileWrite:
        return cls(path, encoded_record(record), is_first=is_first)


def write_together(writes: Sequence[FileWrite], durability: Durability = Durability.NEW) -> list[bool]:
    """Write files of different names; returns when all are on disk. False for each that was there already, and was not
    to be written then.

    They get their names in order, each whole, once the content of all of them is on disk.

    Raises:
        OSError: not all were written.
    """
    drafts = [draft_of(write.path) for write in writes]
    try:
        _side_by_side(_write_draft, list(zip(drafts, writes, strict=True)))
        written = [_give_name(draft, write) for draft, write in zip(drafts, writes, strict=True)]
    except BaseException:
        for draft in drafts:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        raise
    if durability is Durability.NEW:
        changed = {write.path.parent: None for write, is_new in zip(writes, written, strict=True) if is_new}
        _side_by_side(fsync_directory, list(changed))
    return written


def _write_draft(item: tuple[Path, FileWrite]) -> None:
    draft, write = item
    try:
        os.close(write_draft(draft, write.data, write.mode))
    except OSError as error:
        if error.filename is None:
            error.filename = str(write.path)
        raise


def _give_name(draft: Path, write: FileWrite) -> bool:
    if write.is_first:
        return link_first(draft, write.path)
    draft.rename(write.path)
    return True


def _side_by_side(act: Callable[[T], object], items: Sequence[T]) -> None:
    """Returns when all is done, or what was begun when there is an error, which is raised then."""
    if len(items) < 2:
        for item in items:
            act(item)
        return
    left, lock = iter(items), threading.Lock()

    def work() -> None:
        while (item := _next(left, lock)) is not None:
            act(item)

    workers = [in_background(work, "file batch") for _ in range(min(_AT_ONCE, len(items)))]
    errors = [error for worker in workers if (error := worker.exception()) is not None]
    if errors:
        raise errors[0]


def _next(left: Iterator[T], lock: threading.Lock) -> T | None:
    with lock:
        return next(left, None)
